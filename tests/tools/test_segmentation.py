"""Segmentation as a user runs it: trained, tested, searched, killed, resumed, and with a user's mistakes."""

import pickle
import re
import shlex
import shutil
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg.models')
pytest.importorskip('skimage')

sys.path.insert(0, str(Path(__file__).parent))
from test_train_test import ROOT, one_sentence, run
from tiny_search import kill_training

from ruas_mm.search import Genotype
from ruas_mm.utils.checkpoint import load_from_local

CONFIG = ROOT / 'configs' / 'segmentation' / 'ruas_deeplab_demo.py'
BASELINE = CONFIG.with_name('deeplab_demo.py')
SEARCH = CONFIG.with_name('ruas_deeplab_demo_search.py')
TRAIN, TEST, SIZE = 8, 2, (128, 128)
EPOCHS, ITERATIONS = 3, 2  # of the search: two images an iteration, four for the weights, four for the architecture
SMALL = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.decode_head.in_channels': 64,
    'model.decode_head.channels': 16,
    'model.decode_head.c1_in_channels': 8,
    'default_hooks.logger.interval': 1,
}


def flags(given):
    return ['--cfg-options', *(f'{key}={value}' for key, value in given.items())]


def options(data, **more):
    """``--cfg-options`` that make a demo config small."""
    given = dict(SMALL)
    for split in ('train', 'val', 'test'):
        given[f'{split}_dataloader.dataset.data_root'] = f'{data}/'
        given[f'{split}_dataloader.num_workers'] = 0
        given[f'{split}_dataloader.persistent_workers'] = False
    given |= {
        'train_dataloader.batch_size': 4,
        'train_dataloader.dataset.pipeline.2.scale': '(96,96)',
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 5,
        'default_hooks.checkpoint.interval': 1,
    }
    return flags({**given, **more})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data')
    made = ['--train', TRAIN, '--test', TEST, '--size', *SIZE]
    done = run('make_demo_data.py', 'segmentation', '--out', out, *made, cwd=out)
    assert done.returncode == 0, done.stderr
    return out / 'acdc'


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """A work directory after one epoch."""
    work = tmp_path_factory.mktemp('work')
    done = run('train.py', CONFIG, '--work-dir', work, *options(data, **{'train_cfg.val_interval': 1}), cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'Epoch\(val\).*mIoU: [0-9.]+', done.stdout + done.stderr)
    return work


def panels(folder):
    """The pictures that a test has drawn, cut into their panels."""
    width, height = SIZE
    strips = [mmcv.imread(str(path))[-height:] for path in sorted(folder.rglob('*.png'))]
    assert len(strips) == TEST
    assert all(strip.shape[1] % (width + 4) == 0 for strip in strips)
    return [[part[:, :width] for part in np.split(strip, strip.shape[1] // (width + 4), axis=1)] for strip in strips]


def test_testing(data, trained, tmp_path):
    """IoU of each class and their mean, pictures and predictions come out."""
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    given = ['--work-dir', tmp_path, '--out', out, '--show-dir', show, *options(data)]
    done = run('test.py', CONFIG, trained, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr
    assert re.search(r'mIoU: [0-9.]+', output), output[-2000:]
    for name in ('road', 'traffic light', 'person', 'car'):
        assert re.search(rf'\| +{name} +\| +([0-9.]+|nan) +\|', output), name

    for dark, enhanced, illumination, prediction, truth in panels(show):
        assert enhanced.mean() > dark.mean()
        assert illumination.std() > 0
        assert not np.array_equal(prediction, enhanced) and not np.array_equal(truth, enhanced)

    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == TEST
    for prediction in predictions:
        labels = prediction['pred_sem_seg']['data']
        assert labels.dtype == torch.uint8 and labels.shape == (1, *SIZE[::-1])
        assert labels.max() < 19
    assert out.stat().st_size < 3 * TEST * SIZE[0] * SIZE[1]  # not the scores of 19 classes


def test_test_time_augmentation(data, trained, tmp_path):
    """What is shown is the image as it is, not the mirrored version that comes last."""
    given = ['--work-dir', tmp_path, '--tta', '--show-dir', tmp_path / 'show', *options(data)]
    done = run('test.py', CONFIG, trained, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'mIoU: [0-9.]+', done.stdout + done.stderr)
    files = sorted((data / 'rgb_anon' / 'night' / 'val').rglob('*.png'))
    for path, (dark, enhanced, *_) in zip(files, panels(tmp_path / 'show'), strict=True):
        image, enhanced = mmcv.imread(str(path), flag='grayscale'), enhanced.mean(axis=2)
        for shown in (dark.mean(axis=2), enhanced):
            likeness = [np.corrcoef(image.ravel(), view.ravel())[0, 1] for view in (shown, shown[:, ::-1])]
            assert likeness[0] > likeness[1]


def test_baseline(data, tmp_path):
    """All of it is mmseg's; without a scene, its two pictures are left out."""
    small = options(data)
    done = run('train.py', BASELINE, '--work-dir', tmp_path, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    given = ['--work-dir', tmp_path / 'test', '--show-dir', tmp_path / 'show', *small]
    done = run('test.py', BASELINE, tmp_path, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [len(strip) for strip in panels(tmp_path / 'show')] == [3] * TEST


# --- Search -----------------------------------------------------------------------------------------------------------


def search(data, work, *more):
    """What follows ``tools/train.py``; scene and task phases take turns at each iteration."""
    given = dict(SMALL) | {'train_cfg.max_epochs': EPOCHS, 'model.decode_head.reduced_channels': 16}
    for loader in ('train_dataloader', 'custom_hooks.0.val_dataloader'):
        given[f'{loader}.batch_size'] = 2
        given[f'{loader}.num_workers'] = 0
        given[f'{loader}.dataset.dataset.data_root'] = f'{data}/'
        given[f'{loader}.dataset.dataset.pipeline.2.scale'] = '(64,64)'
    given |= {f'custom_hooks.0.{option}': 1 for option in ('scene_iters', 'task_iters')}
    given['custom_hooks.0.warmup'] = 0
    return [SEARCH, '--work-dir', work, *more, *flags(given)]


def test_searched_killed_resumed_trained_tested(data, tmp_path):
    """One chain; the search that was killed finds what the undisturbed one finds, bit for bit."""
    whole, work = tmp_path / 'whole', tmp_path / 'work'
    done = run('train.py', *search(data, whole), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr

    kill_training(search(data, work), tmp_path / 'log.txt', lambda printed: f'[2][1/{ITERATIONS}]' in printed)
    assert not (work / f'epoch_{EPOCHS}.pth').exists()
    done = run('train.py', *search(data, work, '--resume'), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]

    states = [load_from_local(folder / f'epoch_{EPOCHS}.pth')['state_dict'] for folder in (whole, work)]
    assert sum(name.endswith('slots.alphas') for name in states[0]) == 2
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    found = [Genotype.load(folder / 'genotype.json') for folder in (whole, work)]
    assert found[0].slots == found[1].slots and found[0].probabilities == found[1].probabilities
    assert {slot.partition('.')[0] for slot in found[0].slots} == {'scene', 'deeplab_head'}
    for name in ('architecture.png', 'probabilities.png'):
        assert mmcv.imread(str(work / name)).std() > 0

    (printed,) = re.findall(r'^ +python (tools/train\.py .*)$', output, re.MULTILINE)
    tool, *given = shlex.split(printed)
    assert Path(given[0]).name == CONFIG.name
    small = options(data, **{'model.decode_head.reduced_channels': 16})
    done = run(Path(tool).name, *given, '--work-dir', tmp_path / 'found', *small, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    given = ['--work-dir', tmp_path / 'found', '--genotype', work / 'genotype.json', *small]
    done = run('test.py', CONFIG, tmp_path / 'found', *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'mIoU: [0-9.]+', done.stdout + done.stderr)


# --- Mistakes ---------------------------------------------------------------------------------------------------------


def labels_of(data, folder):
    """A copy of the data, and the training's label maps in it."""
    shutil.copytree(data, folder / 'acdc')
    return folder / 'acdc', sorted((folder / 'acdc' / 'gt' / 'night' / 'train').rglob('*.png'))


@pytest.mark.parametrize('workers', [0, 1])
def test_label_map_of_a_wrong_size(data, tmp_path, workers):
    """Also from another process, whose errors torch wraps."""
    broken, labels = labels_of(data, tmp_path)
    for label in labels:
        cv2.imwrite(str(label), np.zeros((50, 70), np.uint8))
    small = options(broken, **{'train_dataloader.num_workers': workers})
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *small, cwd=tmp_path)
    one_sentence(done, labels[0].parent, '128×128', '70×50')


def test_label_map_with_unknown_ids(data, tmp_path):
    broken, labels = labels_of(data, tmp_path)
    for label in labels:
        cv2.imwrite(str(label), np.full(SIZE[::-1], 33, np.uint8))
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *options(broken), cwd=tmp_path)
    one_sentence(done, labels[0].parent, '33', 'from 0 to 18')


def test_label_map_that_is_missing(data, tmp_path):
    broken, labels = labels_of(data, tmp_path)
    labels[3].unlink()
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *options(broken), cwd=tmp_path)
    one_sentence(done, labels[3], 'missing')


def test_batch_of_one(data, tmp_path):
    small = options(data, **{'train_dataloader.batch_size': 1})
    done = run('train.py', CONFIG, '--work-dir', tmp_path / 'work', *small, cwd=tmp_path)
    one_sentence(done, 'batch_size to at least 2')


def test_genotype_without_the_head(data, tmp_path):
    given = ['--genotype', 'ruas_enhance_journal', '--work-dir', tmp_path / 'work', *options(data)]
    one_sentence(run('train.py', CONFIG, *given, cwd=tmp_path), 'deeplab_head.branch_1')
