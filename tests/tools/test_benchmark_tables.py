"""Tables of experiments: what runs, what is kept, and the figures."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmark'))
import run as benchmark  # noqa: E402

TABLE = """
metric = 'psnr'
average_last = 2
baseline = 'fixed'
searches = 1
trainings = 1
_small = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'default_hooks.checkpoint.interval': 4,
}
train = dict(
    config='configs/enhance/ruas_full_lol.py',
    options={
        **_small,
        'train_cfg.max_iters': 3,
        'train_cfg.val_interval': 1,
        'train_dataloader.dataset': dict(data_root='{data}/', data_prefix=dict(img_path='low')),
        'train_dataloader.dataset.pipeline.1.crop_size': (16, 16),
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'val_dataloader.dataset': dict(data_root='{data}/', data_prefix=dict(img_path='low', gt_path='high')),
    },
)
search = dict(
    config='configs/enhance/ruas_full_lol_search.py',
    options={
        **_small,
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.dataset': dict(data_root='{data}/', data_prefix=dict(img_path='low')),
        'custom_hooks.0.val_dataloader.dataset.dataset': dict(data_root='{data}/', data_prefix=dict(img_path='low')),
        'custom_hooks.0.val_dataloader.num_workers': 0,
        'custom_hooks.0.warmup': 0,
    },
)
random = dict(config='configs/enhance/ruas_full_lol_search.py')
rows = dict(
    fixed=dict(title='published'),
    random=dict(title='random ones', genotype='random'),
    found=dict(title='searched', search={}),
)
"""


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folder with the table, its data, and all that the tool has run."""
    folder = tmp_path_factory.mktemp('benchmark')
    pixels = np.random.default_rng(0)
    for name in ('low', 'high'):
        (folder / 'data' / name).mkdir(parents=True)
        for index in range(2):
            image = pixels.integers(0, 60 if name == 'low' else 256, (24, 24, 3)).astype(np.uint8)
            cv2.imwrite(str(folder / 'data' / name / f'{index}.png'), image)
    (folder / 'tiny.py').write_text(TABLE)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def run(folder, *flags):
    command = [sys.executable, ROOT / 'tools/benchmark/run.py', folder / 'tiny.py', '--out', folder / 'out']
    command += ['--data', f'data={folder / "data"}', *flags]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)


def test_every_run_of_the_table_is_made_and_summarised(finished):
    folder, output = finished
    made = {path.relative_to(folder / 'out/tiny').as_posix() for path in (folder / 'out/tiny').glob('*/*.json')}
    assert made == {*('fixed/train-0-0.json', 'random/train-0-0.json', 'found/search-0.json', 'found/train-0-0.json')}
    for row, name in (('random', 'train-0-0'), ('found', 'search-0'), ('found', 'train-0-0')):
        slots = json.loads((folder / f'out/tiny/{row}/{name}.json').read_text())['slots']
        assert {slot.partition('.')[0] for slot in slots} == {'scene', 'noise_removal'}
    summary = json.loads((folder / 'out/tiny.json').read_text())
    metrics = json.loads((folder / 'out/tiny/fixed/train-0-0.json').read_text())['metrics']
    assert len(metrics) == 3
    assert summary['fixed']['mean'] == pytest.approx(sum(metrics[-2:]) / 2)
    assert summary['found']['search_seconds'] > 0
    markdown = (folder / 'out/tiny.md').read_text()
    assert f'| searched | {summary["found"]["mean"]:.3f} |' in markdown
    assert 'published' in output


def test_finished_runs_are_kept_and_a_changed_row_runs_again(finished):
    folder, _ = finished
    kept = {path: path.stat().st_mtime_ns for path in (folder / 'out/tiny').glob('*/*.json')}
    (folder / 'tiny.py').write_text(
        TABLE.replace("title='random ones'", "title='random', train=dict(options={'train_cfg.max_iters': 2})")
    )
    done = run(folder)
    assert done.returncode == 0, done.stderr
    changed = {path.parent.name for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert changed == {'random'}
    metrics = json.loads((folder / 'out/tiny/random/train-0-0.json').read_text())['metrics']
    assert len(metrics) == 2


def test_a_run_in_the_hands_of_another_process_is_left_to_it(finished, monkeypatch):
    folder, _ = finished
    table = benchmark.Table(folder / 'tiny.py', folder / 'out', {'data': str(folder / 'data')})
    path = folder / 'out/tiny/fixed/train-0-0.json'
    path.unlink()
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: pytest.fail('It was run by both.'))
    with benchmark._locked(path.with_suffix('') / '.lock') as mine:
        assert mine
        table.run(['fixed'])
    assert not path.exists()


def test_difference_is_welchs_interval():
    a, b = [0.5, 0.6, 0.7], [0.3, 0.5, 0.1, 0.2]
    mean, low, high = benchmark.difference(a, b)
    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 4
    freedom = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 3)
    reach = stats.t.ppf(0.975, freedom) * (va + vb) ** 0.5
    assert (mean, low, high) == pytest.approx((0.325, 0.325 - reach, 0.325 + reach))
    assert benchmark.difference([0.5], b) is None


def test_a_run_that_fails_is_named(finished, tmp_path):
    folder, _ = finished
    (tmp_path / 'tiny.py').write_text(TABLE)
    command = [sys.executable, ROOT / 'tools/benchmark/run.py', tmp_path / 'tiny.py', '--out', tmp_path / 'out']
    command += ['--rows', 'fixed', '--data', f'data={tmp_path / "nowhere"}']
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert 'fixed train-0-0' in done.stderr
    assert 'output.txt' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('flags', [['no_such_table'], ['search_detection', '--rows', 'nothing']])
def test_names_that_do_not_exist(flags):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/benchmark/run.py', *flags], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert done.stderr.startswith('Error: ')
    assert flags[-1] in done.stderr


@pytest.mark.parametrize('path', sorted((ROOT / 'tools/benchmark/tables').glob('*.py')), ids=lambda path: path.stem)
def test_every_run_of_our_tables_has_a_config(path, tmp_path):
    pytest.importorskip('mmdet.models')
    pytest.importorskip('mmseg.models')
    table = benchmark.Table(
        path, tmp_path, dict.fromkeys(('demo', 'lol', 'lists', 'camvid', 'heads', 'weights'), 'folder')
    )
    assert table.config.baseline in table.config.rows
    for row, config in table.config.rows.items():
        for part in ('train', *(['search'] if 'search' in config else [])):
            built = table._build_config(row, part, 1)
            assert isinstance(built, Config)
            assert built.randomness.seed == 1
