"""Enhancement by tools/train.py and tools/test.py as a user runs them: trained, tested, searched, with mistakes."""

import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmcv.transforms')
pytest.importorskip('skimage')

import mmcv

from ruas_mm.search import Genotype

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'enhance' / 'ruas_a_demo.py'
SEARCH = CONFIG.with_name('ruas_a_demo_search.py')
WIDTH, HEIGHT = 96, 64
TRAIN, TEST = 6, 3

# As with mmcv-lite, and neither mmdet nor mmseg nor mmagic: this task does without.
WITHOUT_HOSTS = """
import pkgutil, runpy, sys
from importlib.abc import MetaPathFinder

find_loader = pkgutil.find_loader
pkgutil.find_loader = lambda name: None if name == 'mmcv._ext' else find_loader(name)  # how mmengine looks for mmcv.ops

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmdet', 'mmseg', 'mmagic') or name in ('mmcv.ops', 'mmcv._ext'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run(tool, *arguments, cwd):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-c', WITHOUT_HOSTS, str(ROOT / 'tools' / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def options(data, **more):
    """``--cfg-options`` that make the demo config small."""
    given = {
        'train_cfg.max_iters': 5,
        'train_cfg.val_interval': 5,
        'default_hooks.checkpoint.interval': 5,
        'default_hooks.logger.interval': 1,
    }
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        given[f'{loader}.dataset.data_root'] = f'{data}/'
        given[f'{loader}.num_workers'] = 0
        given[f'{loader}.persistent_workers'] = False
    given.update(more)
    return ['--cfg-options', *(f'{key}={value}' for key, value in given.items() if value is not None)]


def one_sentence(done, *words):
    assert done.returncode == 1, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr, done.stderr[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1, done.stderr[-2000:]
    for word in words:
        assert str(word) in errors[0]


def figures(done):
    """PSNR and SSIM that a run printed last."""
    found = re.findall(r'enhance/psnr: ([0-9.]+)  enhance/ssim: ([0-9.]+)', done.stdout + done.stderr)
    assert found, (done.stdout + done.stderr)[-2000:]
    return tuple(map(float, found[-1]))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Pairs in the layout of LOL: smooth colours, and a twelfth of their light."""
    root = tmp_path_factory.mktemp('lol')
    rng = np.random.default_rng(0)
    for folder, count in (('our485', TRAIN), ('eval15', TEST)):
        for kind in ('low', 'high'):
            (root / folder / kind).mkdir(parents=True)
        for number in range(1, count + 1):
            bright = cv2.resize(rng.uniform(60, 250, (4, 6, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            bright = bright.clip(0, 255)
            for kind, picture in (('high', bright), ('low', bright / 12)):
                cv2.imwrite(str(root / folder / kind / f'{number}.png'), picture.round().astype(np.uint8))
    return root


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    work = tmp_path_factory.mktemp('work')
    done = run('train.py', CONFIG, '--work-dir', work, *options(data), cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    return work, figures(done)


def test_training_leaves_what_is_needed(trained):
    work, _ = trained
    checkpoint = torch.load(work / 'iter_5.pth', weights_only=False)
    parts = {key.partition('.')[0] for key in checkpoint['state_dict']}
    assert parts >= {'scene_module', 'noise_removal', 'noise_estimator'}
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    scalars = next(work.glob('*/vis_data/scalars.json')).read_text()
    for name in ('loss_scene_smooth', 'loss_denoise_smooth', 'loss_noise_estimate', 'enhance/psnr'):
        assert name in scalars


def test_testing(data, trained, tmp_path):
    """The figures of the training's end; pictures and predictions that give these figures."""
    work, expected = trained
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    flags = ['--work-dir', tmp_path, '--out', out, '--show-dir', show]
    done = run('test.py', CONFIG, work, *flags, *options(data), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert figures(done) == expected
    assert str(show) in done.stdout

    pictures = sorted(show.rglob('*.*'))
    assert [picture.name for picture in pictures] == [f'{number}.png' for number in range(1, TEST + 1)]
    for picture in pictures:
        strip = mmcv.imread(str(picture)).astype(float)
        assert strip.shape[1] == 4 * (WIDTH + 4)
        panels = [strip[-HEIGHT:, left : left + WIDTH] for left in range(0, strip.shape[1], WIDTH + 4)]
        dark, enhanced, _, truth = panels
        assert (truth == mmcv.imread(str(data / 'eval15/high' / picture.name))).all()
        assert (dark == mmcv.imread(str(data / 'eval15/low' / picture.name))).all()
        assert np.abs(enhanced - truth).mean() < np.abs(dark - truth).mean()

    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == TEST
    decibels = []
    for prediction in predictions:
        assert not {'gt', 'feature', 'illumination'} & set(prediction)  # maps would make the file five times as large
        enhanced = (prediction['enhanced'].numpy().transpose(1, 2, 0) * 255).round()
        truth = mmcv.imread(prediction['gt_path'], channel_order='rgb').astype(float)
        decibels.append(10 * np.log10(255**2 / ((enhanced - truth) ** 2).mean()))
    assert np.mean(decibels) == pytest.approx(expected[0], abs=1e-3)


def test_images_without_ground_truth(data, trained, tmp_path):
    """No PSNR, in one sentence; pictures without its panel where the metric asks for none."""
    without = options(data, **{'test_dataloader.dataset.data_prefix.gt_path': 'None'})
    done = run('test.py', CONFIG, trained[0], '--work-dir', tmp_path, *without, cwd=tmp_path)
    one_sentence(done, data / 'eval15/low/1.png', 'no ground truth', 'niqe')
    done = run(
        'test.py', CONFIG, trained[0], '--work-dir', tmp_path, *without, 'test_evaluator.metric=niqe', cwd=tmp_path
    )
    one_sentence(done, 'niqe needs mmagic', "No module named 'mmagic'")


def test_searched_trained_tested(data, tmp_path):
    """The chain of the guide, by the command that the search prints."""
    given = {
        'train_cfg.max_epochs': 3,
        'train_cfg.max_iters': None,
        'default_hooks.checkpoint.interval': 1,
        'custom_hooks.0.scene_iters': 1,
        'custom_hooks.0.warmup': 0,
        'custom_hooks.0.interval': 1,
        'custom_hooks.0.val_dataloader.num_workers': 0,
        'custom_hooks.0.val_dataloader.dataset.dataset.data_root': f'{data}/',
        'train_dataloader.dataset.dataset.data_root': f'{data}/',
        'train_dataloader.num_workers': 0,
    }
    flags = ['--cfg-options', *(f'{key}={value}' for key, value in given.items() if value is not None)]
    search = tmp_path / 'search'
    done = run('train.py', SEARCH, '--work-dir', search, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = Genotype.load(search / 'genotype.json')
    assert {slot.partition('.')[0] for slot in found.slots} == {'scene', 'noise_removal'}
    assert found.origin['iterations'] == 3 * TRAIN // 2
    probabilities = np.array([list(row.values()) for row in found.probabilities.values()])
    assert np.ptp(probabilities, axis=1).min() > 0  # both modules were searched

    (command,) = re.findall(r'^ +python (tools/train\.py .*)$', done.stdout + done.stderr, re.MULTILINE)
    tool, config, *rest = shlex.split(command)
    assert Path(config) == CONFIG
    work = tmp_path / 'found'
    done = run(Path(tool).name, config, *rest, '--work-dir', work, *options(data), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = figures(done)
    done = run('test.py', CONFIG, work, '--work-dir', work, *rest, *options(data), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert figures(done) == expected


def test_load_from_of_another_model(data, tmp_path):
    torch.save({'state_dict': {'backbone.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    done = run('train.py', CONFIG, *options(data, load_from=tmp_path / 'other.pth'), cwd=tmp_path)
    one_sentence(done, 'other.pth is of another model than the config', 'backbone.weight')


def test_data_that_are_not_there(tmp_path):
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *options(tmp_path / 'none'), cwd=tmp_path)
    one_sentence(done, tmp_path / 'none', 'no such folder')
