"""The random baseline: what is drawn, how it is judged, and that nothing is done twice."""

import copy
import json
import statistics
import sys
from collections import Counter
from pathlib import Path

import pytest
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from nested_toy import CANDIDATES, TwoConvs, config, kill

from ruas_mm.engine import CooperativeSearchHook
from ruas_mm.engine.random_search import draw_architectures
from ruas_mm.search import Genotype, SearchSlots, set_genotype

OPTIONS = dict(strategy='random', metric='toy/closeness', validation=True)


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch):
    monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda *_: None)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it asks compilers, for the log
    yield
    kill.clear()


def run(settings):
    runner = Runner.from_cfg(settings)
    runner.train()
    return runner


def read(path):
    return json.loads(path.read_text())


def test_every_operation_is_as_likely_as_any_other():
    """3000 draws of three: the standard deviation of a count is 26."""
    drawn = draw_architectures(TwoConvs(), 3000, 0)
    for slot in ('head.a', 'head.b'):
        counts = Counter(architecture[slot] for architecture in drawn)
        assert all(abs(counts[candidate] - 1000) < 110 for candidate in CANDIDATES)
    pairs = Counter(tuple(architecture.values()) for architecture in drawn)
    assert len(pairs) == 9 and all(abs(count - 333) < 80 for count in pairs.values())
    assert draw_architectures(TwoConvs(), 5, 0) == drawn[:5]
    assert draw_architectures(TwoConvs(), 5, 1) != drawn[:5]


def test_slots_that_are_not_searched_keep_their_operation():
    model = TwoConvs()
    model.scene = SearchSlots('scene', ['a'], ['skip', 'conv_1x1'], {'scene.a': 'skip'})
    assert {architecture['scene.a'] for architecture in draw_architectures(model, 20, 0)} == {'skip'}


def test_samples_are_trained_as_the_config_says_and_the_best_one_is_kept(tmp_path):
    """A run that is killed half-way through a sample, with one done, ends as the undisturbed one."""
    kill['sample_1'] = 4  # in the last epoch
    settings = config(tmp_path / 'work', f'{tmp_path.name}_killed', samples=3, **OPTIONS)
    with pytest.raises(InterruptedError):
        run(settings)
    work = tmp_path / 'work'
    assert len(read(work / 'samples.json')['samples']) == 1
    first = (work / 'sample_0' / 'sample.json').read_text()
    kill.update({'sample_0': 0, 'sample_1': 3})  # neither begins again
    runner = run(config(work, f'{tmp_path.name}_again', samples=3, **OPTIONS))
    assert (work / 'sample_0' / 'sample.json').read_text() == first
    assert runner.iter == 0  # the supernet itself is not trained

    found = read(work / 'samples.json')
    drawn = draw_architectures(TwoConvs(), 3, 0)
    assert [sample['slots'] for sample in found['samples']] == drawn
    values = [sample['value'] for sample in found['samples']]
    assert found['mean'] == pytest.approx(statistics.fmean(values)) and found['sd'] == pytest.approx(
        statistics.stdev(values)
    )
    assert found['metric'] == 'toy/closeness' and found['seed'] == 0
    assert found['seconds']['cpu'] == pytest.approx(sum(each['seconds']['cpu'] for each in found['samples']), abs=0.1)
    best = max(range(3), key=values.__getitem__)
    assert found['best'] == f'sample_{best}'
    genotype = Genotype.load(work / 'genotype.json')
    assert genotype.slots == drawn[best]
    assert genotype.origin['strategy'] == 'random' and genotype.origin['value'] == values[best]
    assert genotype.origin['weight_steps'] == {'scene': 0, 'task': 6}

    # By itself, without any search: the config with the architecture in it.
    alone = config(tmp_path / 'alone', f'{tmp_path.name}_alone', validation=True)
    alone.custom_hooks = []
    set_genotype(alone.model, drawn[1])
    runner = run(alone)
    expected = runner.message_hub.get_scalar('val/toy/closeness').current()
    assert found['samples'][1]['value'] == pytest.approx(expected, rel=1e-12)
    assert found['samples'][1]['metrics']['toy/lost'] is None  # not a number of JSON

    # Another metric, or more samples, need no new training of those that are there; other architectures are refused.
    kill.update({'sample_1': 0, 'sample_2': 0})
    run(config(work, f'{tmp_path.name}_lost', samples=2, **{**OPTIONS, 'metric': 'toy/lost'}))
    assert read(work / 'samples.json')['mean'] is None
    for options, words in (
        (dict(OPTIONS, metric='toy/missing'), ("'toy/missing'", 'toy/closeness, toy/lost')),
        (dict(OPTIONS, seed=1), ('sample_0', 'another architecture', 'seed 1')),
    ):
        with pytest.raises(ValueError) as caught:
            run(config(work, f'{tmp_path.name}_{options["metric"]}', samples=1, **options))
        assert '\n' not in str(caught.value)
        assert all(word in str(caught.value) for word in words)


def test_a_seed_left_to_chance_is_remembered(tmp_path):
    settings = config(tmp_path, f'{tmp_path.name}_first', epochs=1, samples=1, seed=None, **OPTIONS)
    run(copy.deepcopy(settings))
    seed = read(tmp_path / 'samples.json')['seed']
    kill['sample_0'] = 0
    run(settings)
    assert read(tmp_path / 'samples.json')['seed'] == seed


def test_a_config_without_validation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'toy/closeness' of its validation, but the config has no val_dataloader"):
        run(config(tmp_path, tmp_path.name, **{**OPTIONS, 'validation': False}))


def test_a_model_that_takes_no_genotype_is_refused(tmp_path):
    settings = config(tmp_path, tmp_path.name, samples=1, **OPTIONS)
    del settings.model['genotype']
    with pytest.raises(ValueError, match='no key "genotype" for head; write genotype=None'):
        run(settings)


@pytest.mark.parametrize('options', [dict(metric=None), dict(metric='a', replicas=2), dict(metric='a', samples=0)])
def test_options_that_make_no_sense_together(options):
    with pytest.raises(ValueError, match='CooperativeSearchHook needs'):
        CooperativeSearchHook({}, strategy='random', **options)
