"""The validity report of a small search, part by part, and gone on with after a kill."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import mmcv
import pytest

pytest.importorskip('mmdet.models')
pytest.importorskip('skimage')
pytest.importorskip('scipy')

from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).parent))
from prepared_process import ROOT, run_prepared
from tiny_search import CONFIG, ITERATIONS, make_data, small_model

from ruas_mm.apis import search_study
from ruas_mm.apis.search_halves import config_text, supernet_validation, training_on_halves
from ruas_mm.search import Genotype

SPEC = importlib.util.spec_from_file_location(
    'search_validity', ROOT / 'tools' / 'analysis_tools' / 'search_validity.py'
)
search_validity = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(search_validity)

PARTS = ['search_0', 'search_1', 'random_0_0', 'plain_0', 'found_0_0', 'found_1_0', 'random_0_1']


def arguments(out, data, *flags):
    """What follows the tool: two searches and one training of each architecture, an epoch on three images each."""
    both = {**small_model(), 'train_cfg.max_epochs': 1, 'train_dataloader.num_workers': 0}
    both |= {'train_dataloader.batch_size': 1, 'train_dataloader.persistent_workers': False}
    search = {
        f'{loader}.{key}': value
        for loader in ('train_dataloader', 'custom_hooks.0.val_dataloader')
        for key, value in {
            'batch_size': 1,
            'num_workers': 0,
            'dataset.fraction': ITERATIONS / (ITERATIONS + 4),
            'dataset.dataset.data_root': f'{data}/',
            'dataset.dataset.pipeline.3.scale': '(96,64)',
        }.items()
    }
    search['custom_hooks.0.strategy'] = 'global'
    search['custom_hooks.0.warmup'] = 0
    train = {
        'train_dataloader.dataset.data_root': f'{data}/',
        'train_dataloader.dataset.pipeline.3.scale': '(96,64)',
        'val_dataloader.dataset.data_root': f'{data}/',
        'val_dataloader.dataset.pipeline.1.scale': '(96,64)',
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
    }
    options = []
    for name, given in (('cfg', both), ('search', search), ('train', train)):
        options += [f'--{name}-options', *(f'{key}={value}' for key, value in given.items())]
    counts = ['--searches', '2', '--trainings', '1', '--rank', '1', '--random', '1', '--batches', '1']
    return [str(CONFIG), '--out', str(out), '--fallback', 'ssd_plain', *counts, *options, *flags]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data'))


@pytest.fixture
def parts(monkeypatch):
    """The parts that are run, each in a prepared process."""
    started = []

    def run(command):
        tool, *given = map(str, command)
        work = Path(given[given.index('--work-dir') + 1])
        started.append(work.name)
        done = run_prepared(tool, *given, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(search_study.failure(command, done.stderr))
        return 10.0 if work.name.startswith('search') else 4.0

    monkeypatch.setattr(search_study, 'run_process', run)
    return started


def test_report_and_what_is_run_again(data, parts, tmp_path, capsys):
    out = tmp_path / 'study'
    search_validity.main(arguments(out, data))
    assert sorted(parts) == sorted(PARTS)
    report = json.loads((out / 'validity.json').read_text())
    found = [Genotype.load(out / f'search_{index}' / 'genotype.json') for index in range(2)]

    assert list(report['slots']) == list(found[0].slots)
    for slot, row in report['slots'].items():
        assert row['choices'] == [genotype.slots[slot] for genotype in found]
        assert row['importance']['replaced_by'] in found[0].probabilities[slot]
        assert row['importance']['replaced_by'] != row['choices'][0]
    plain = Genotype.load('ssd_plain').slots
    other = [slot for slot in plain if plain[slot] != found[0].slots[slot]]
    assert other and all(report['slots'][slot]['importance']['replaced_by'] == plain[slot] for slot in other)
    agreed = [slot for slot in found[0].slots if found[0].slots[slot] == found[1].slots[slot]]
    assert report['agreement']['all slots']['agreed'] == agreed
    assert report['agreement']['all slots']['expected'] == pytest.approx(7 / 7 + 16 / 10)
    assert set(report['agreement']) == {'all slots', 'scene', 'ssd_neck', 'ssd_head'}
    assert [search['weight_steps'] for search in report['searches']] == [{'scene': ITERATIONS, 'task': ITERATIONS}] * 2
    assert all(0 <= search['saturation'] <= 1 for search in report['searches'])
    assert report['ranking']['supernet']['count'] == 1
    rows = report['comparison']['rows']
    assert list(rows) == ['plain', 'best of 1 random', 'search 0', 'search 1', 'all searches']
    for name, folder in (('plain', 'plain_0'), ('search 1', 'found_1_0'), ('best of 1 random', 'random_0_1')):
        log = next((out / folder).glob('*/*.log')).read_text()
        shown = float(re.findall(rf'{report["metric"]}: ([0-9.]+)', log)[-1])
        assert rows[name]['figures'][0][0] == pytest.approx(shown, abs=1e-4)
    assert report['advice'] in (out / 'validity.md').read_text()
    assert report['advice'] in capsys.readouterr().out
    assert report['cost'] == {'of a search': 10.0, 'of a training': 4.0}
    assert mmcv.imread(str(out / 'validity.png')).std() > 0

    # What the parts were: the plain architecture with the scene module of the config.
    plain_slots = Genotype.load(out / 'genotypes' / 'plain.json').slots
    published = Genotype.load('ruas_darkface_vgg16').slots
    assert plain_slots == {slot: plain.get(slot, published[slot]) for slot in published}

    # One part lost, and a value of the supernet: these alone are run again, with the same result.
    (out / 'plain_0' / 'finished.json').unlink()
    values = json.loads((out / 'supernet.json').read_text())
    lost = values.pop('found')
    (out / 'supernet.json').write_text(json.dumps(values))
    parts.clear()
    search_validity.main(arguments(out, data))
    assert parts == ['plain_0']
    assert json.loads((out / 'validity.json').read_text()) == report
    assert json.loads((out / 'supernet.json').read_text())['found'] == lost

    with pytest.raises(ValueError, match='other options: search.py differs; choose another --out'):
        search_validity.main(arguments(out, data, '--search-options', 'custom_hooks.0.order=1'))
    assert parts == ['plain_0']


def test_a_part_that_fails_is_named(data, parts, tmp_path):
    wrong = arguments(tmp_path / 'study', data, '--search-options', 'custom_hooks.0.strategy=naive')
    with pytest.raises(RuntimeError, match="search_0 .*failed: CooperativeSearchHook has no strategy 'naive'"):
        search_validity.main(wrong)
    assert parts == ['search_0']


# --- The halves -----------------------------------------------------------------------------------------------------


@pytest.fixture
def configs():
    return Config.fromfile(CONFIG), Config.fromfile(CONFIG.with_name('ruas_ssd_demo.py'))


def test_halves_are_those_of_the_search(configs, data):
    """No image is in both, none is missing, and the search sees the same ones."""
    from mmengine.registry import DATASETS, init_default_scope

    search, train = configs
    init_default_scope('mmdet')
    search.train_dataloader.dataset.dataset.data_root = train.train_dataloader.dataset.data_root = f'{data}/'
    halves = training_on_halves(search, train)

    def images(loader):
        dataset = DATASETS.build(loader.dataset)
        return {dataset.get_data_info(index)['img_path'] for index in range(len(dataset))}

    weights, judging = images(halves.train_dataloader), images(halves.val_dataloader)
    assert weights == images(search.train_dataloader)
    assert not weights & judging
    whole = DATASETS.build(train.train_dataloader.dataset)
    assert len(weights | judging) == len(whole)
    assert halves.val_dataloader.dataset.dataset.pipeline == train.val_dataloader.dataset.pipeline
    assert halves.test_dataloader == train.test_dataloader
    written = Config.fromstring(config_text(halves), '.py').to_dict()
    assert written == {key: value for key, value in halves.to_dict().items() if key in written}
    assert {'model', 'train_dataloader', 'val_evaluator', 'randomness', 'default_scope'} <= set(written)


def test_supernet_sees_images_of_the_search(configs):
    search, train = configs
    train.train_dataloader.dataset.pipeline[3].scale = train.val_dataloader.dataset.pipeline[1].scale
    judged = supernet_validation(search, training_on_halves(search, train))
    assert judged.val_dataloader.dataset.dataset.pipeline[1].scale == (192, 144)
    assert not judged.custom_hooks
    train.train_dataloader.dataset.pipeline[3].scale = (100, 100)  # crops of another scale than the test's images
    judged = supernet_validation(search, training_on_halves(search, train))
    assert judged.val_dataloader.dataset.dataset.pipeline[1].scale == (320, 240)


def test_configs_that_do_not_fit(configs):
    search, train = configs
    with pytest.raises(ValueError, match='must be a ruas_mm.split_dataset'):
        training_on_halves(train, train)
    with pytest.raises(ValueError, match='one whole data set with a pipeline'):
        training_on_halves(search, Config({**search.to_dict(), **{k: train[k] for k in train if k.startswith('val_')}}))
    with pytest.raises(ValueError, match='must define val_dataloader and val_evaluator'):
        training_on_halves(search, search)
    train.val_evaluator = dict(type='mmdet.CocoMetric', ann_file='test.json')
    with pytest.raises(ValueError, match='ann_file'):
        training_on_halves(search, train)
