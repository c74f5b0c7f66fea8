"""Searches repeated in one run: which results they give, and what they leave alone."""

import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

sys.path.insert(0, str(Path(__file__).parent))
from nested_toy import CANDIDATES, TwoConvs, config, kill, loader

from ruas_mm.engine import CooperativeSearchHook
from ruas_mm.search import Genotype


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch):
    monkeypatch.setattr('ruas_mm.visualization.architecture.draw_architecture', lambda *_: None)
    monkeypatch.setattr('ruas_mm.visualization.probabilities.plot_probabilities', lambda *_: None)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it asks compilers, for the log
    yield
    kill.clear()


def search(folder, name, resume=None, load_from=None, **options):
    settings = config(folder, name, **options)
    if resume or load_from:
        settings.load_from, settings.resume = str(resume or load_from), resume is not None
    runner = Runner.from_cfg(settings)
    runner.train()
    return runner


def read(folder):
    return json.loads((folder / 'slots.json').read_text())


def probabilities(folder):
    return Genotype.load(folder / 'genotype.json').probabilities


def test_replicas_are_the_searches_of_the_next_seeds(tmp_path):
    """One of them in this run, another by hand before."""
    fallback = dict.fromkeys(('head.a', 'head.b'), 'conv_3x3')
    whole, alone = tmp_path / 'whole', tmp_path / 'alone'
    search(alone, f'{tmp_path.name}_1', seed=1)
    search(whole / 'replica_2', f'{tmp_path.name}_2', seed=2)
    by_hand = (whole / 'replica_2' / 'slots.json').read_text()
    runner = search(whole, f'{tmp_path.name}_all', replicas=3, fallback=fallback)
    assert (whole / 'replica_2' / 'slots.json').read_text() == by_hand
    assert probabilities(whole / 'replica_1') == probabilities(alone)  # bit by bit
    assert [read(whole / folder)['seed'] for folder in ('.', 'replica_1', 'replica_2')] == [0, 1, 2]

    best = [
        {slot: row['best'] for slot, row in read(whole / folder)['slots'].items()}
        for folder in ('.', 'replica_1', 'replica_2')
    ]
    apart = [slot for slot in best[0] if len({each[slot] for each in best}) > 1]
    assert apart, 'the test needs a slot on which the searches disagree'
    genotype = Genotype.load(whole / 'genotype.json')
    for slot in apart:
        assert genotype.slots[slot] == 'conv_3x3'
        assert genotype.undecided[slot].startswith('The replicas disagree: ')
    assert read(whole)['agreement'] == {'slots': 2, 'agreeing': 2 - len(apart), 'by_chance': pytest.approx(2 / 9)}

    # What mmengine finds by name is the outer run's again, and its log is its own.
    for cls, mine in ((MMLogger, runner.logger), (Visualizer, runner.visualizer), (MessageHub, runner.message_hub)):
        assert cls.get_current_instance() is mine
        assert not any('replica_1' in name for name in cls._instance_dict)
    assert DefaultScope.get_current_instance() is runner.default_scope
    log = Path(runner.logger.log_file).read_text()
    assert log.count('The search has ended') == log.count('Epoch(train) [3]') == log.count('Epoch(train) [1]') == 1
    assert log.index('Replica 1 of 2') < log.index('Replica 2 of 2') < log.index('The search has ended')
    scalars = next(whole.glob('*/vis_data/scalars.json')).read_text()
    assert scalars.count('search/entropy/head') == 4  # iterations 0, 2, 4, 6


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """One replica was half-way, the next had not begun: it starts from the weights that the first search had."""
    weights = tmp_path / 'weights.pth'
    torch.manual_seed(7)
    torch.save({'state_dict': TwoConvs().state_dict()}, weights)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    search(whole, f'{tmp_path.name}_whole', replicas=3, load_from=weights)
    kill['killed/replica_1'] = 3  # in the second epoch
    with pytest.raises(InterruptedError):
        search(killed, f'{tmp_path.name}_killed', replicas=3, load_from=weights)
    assert not (killed / 'slots.json').exists()
    kill['killed/replica_1'] = 1  # it does not begin again
    search(killed, f'{tmp_path.name}_resumed', replicas=3, resume=killed / 'epoch_3.pth')
    for folder in ('.', 'replica_1', 'replica_2'):
        assert probabilities(killed / folder) == probabilities(whole / folder)
    assert read(killed)['slots'] == read(whole)['slots']


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda content: content['slots'].pop('head.b'), ('of the same slots', 'head.a, head.b')),
        (lambda content: content['slots']['head.b'].update(best='conv_7x7'), ("'head.b'", 'candidates')),
        (lambda content: content.update(seed=0), ('seed 0', 'no replica')),
        (lambda content: content.clear(), ('of the same slots',)),
    ],
)
def test_what_is_no_replica_is_named(tmp_path, change, words):
    slots = {slot: {'best': CANDIDATES[0]} for slot in ('head.a', 'head.b')}
    content = {'seed': 1, 'slots': slots}
    change(content)
    path = tmp_path / 'replica_1' / 'slots.json'
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        search(tmp_path, tmp_path.name, replicas=2, epochs=1)
    assert '\n' not in str(caught.value)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_run_without_a_config_has_no_replicas(tmp_path):
    runner = Runner.from_cfg(config(tmp_path, tmp_path.name, epochs=1))
    runner._hooks = [hook for hook in runner._hooks if not isinstance(hook, CooperativeSearchHook)]
    runner.cfg.custom_hooks = []
    runner.register_hook(CooperativeSearchHook(loader(2), strategy='global', replicas=2))
    with pytest.raises(ValueError, match='replicas repeat the search of a config.*custom_hooks'):
        runner.train()
