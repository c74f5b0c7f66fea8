"""Low-light images in the layouts of LOL, LOL-v2 and MIT-Adobe FiveK, in any folder, and in invalid layouts."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmcv.transforms')

from mmengine.registry import DATASETS, TRANSFORMS

from ruas_mm.datasets.enhance import LowLightDataset
from ruas_mm.models.enhance import RUASDataPreprocessor

SPLIT = Path(__file__).resolve().parents[2] / 'tools/dataset_tools/split.py'
TEST_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.LoadGroundTruth'),
    dict(type='ruas_mm.PackEnhanceInputs'),
]


def write(path, size=(12, 8), value=20):
    """An image of (width, height) whose channels differ: blue is ``value``, green 10 more, red 20 more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*size[::-1], 3), (value, value + 10, value + 20), np.uint8)
    cv2.imwrite(str(path), image)
    return path


def build(root, **options):
    return DATASETS.build(dict(type='ruas_mm.LowLightDataset', data_root=str(root), **options))


def infos(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def relative(path, root):
    return Path(path).relative_to(root).as_posix()


@pytest.fixture
def lol(tmp_path):
    for number in (2, 10, 1):
        write(tmp_path / f'our485/low/{number}.png', value=number)
        write(tmp_path / f'our485/high/{number}.png', value=100 + number)
    return tmp_path


PREFIX = dict(img_path='our485/low', gt_path='our485/high')


def test_lol(lol):
    found = infos(build(lol, data_prefix=PREFIX))
    assert [info['img_id'] for info in found] == ['1.png', '2.png', '10.png']
    for info in found:
        assert relative(info['img_path'], lol) == f'our485/low/{info["img_id"]}'
        assert relative(info['gt_path'], lol) == f'our485/high/{info["img_id"]}'
        assert (info['height'], info['width']) == (8, 12)


def test_lol_v2(tmp_path):
    for number in ('00690', '00691'):
        write(tmp_path / f'Test/Low/low{number}.png')
        write(tmp_path / f'Test/Normal/normal{number}.png')
    prefix = dict(img_path='Test/Low', gt_path='Test/Normal')
    found = infos(build(tmp_path, data_prefix=prefix, name_prefix=('low', 'normal')))
    assert [Path(info['gt_path']).name for info in found] == ['normal00690.png', 'normal00691.png']
    with pytest.raises(FileNotFoundError, match=r'low00690\.png has no ground truth'):
        build(tmp_path, data_prefix=prefix)
    with pytest.raises(ValueError, match=r"low00690\.png: the file name must begin with 'dark'"):
        build(tmp_path, data_prefix=prefix, name_prefix=('dark', 'normal'))


def test_fivek_in_lists_of_the_split_tool(tmp_path):
    """The ground truth may have another suffix; ground truth of images that are not used is ignored."""
    for number in range(6):
        write(tmp_path / f'input/a{number:04}.jpg')
        write(tmp_path / f'expertC/a{number:04}.png')
    command = [sys.executable, str(SPLIT), str(tmp_path), '--glob', 'input/*', '--train', '4', '--test', '2']
    subprocess.run(command, check=True, capture_output=True)
    names = []
    for part, count in (('train', 4), ('test', 2)):
        found = infos(
            build(tmp_path, ann_file=f'splits/{part}.txt', data_prefix=dict(img_path='input', gt_path='expertC'))
        )
        assert len(found) == count
        assert all(Path(info['gt_path']).name == Path(info['img_id']).stem + '.png' for info in found)
        names += [info['img_id'] for info in found]
    assert sorted(names) == [f'a{number:04}.jpg' for number in range(6)]


def test_any_folder(tmp_path):
    """Images of any format in sub-folders, without ground truth; other files are ignored and a list may select some."""
    for name in ('b.JPG', 'a.png', 'night/2.bmp', 'night/10.png', 'night/10.webp'):
        write(tmp_path / name)
    (tmp_path / 'night/notes.txt').write_text('no image')
    found = infos(build(tmp_path))
    assert [info['img_id'] for info in found] == ['a.png', 'b.JPG', 'night/2.bmp', 'night/10.png', 'night/10.webp']
    assert not any('gt_path' in info for info in found)
    (tmp_path / 'list.txt').write_text('night/10.webp\n\nb\n')
    found = infos(build(tmp_path, ann_file='list.txt', data_prefix=dict(gt_path=None)))
    assert [info['img_id'] for info in found] == ['night/10.webp', 'b.JPG']


DAMAGE = {
    'no such folder': (dict(data_prefix=dict(img_path='none')), None, r'none: no such folder'),
    'no such folder of ground truth': (
        dict(data_prefix=dict(img_path='our485/low', gt_path='none')),
        None,
        r'none: no such folder',
    ),
    'empty folder': (
        dict(data_prefix=dict(img_path='empty')),
        lambda root: (root / 'empty').mkdir(),
        r'empty contains no images',
    ),
    'missing ground truth': (
        {},
        lambda root: (root / 'our485/high/2.png').unlink(),
        r'low/2\.png has no ground truth, expected .*high/2 ',
    ),
    'two ground truths': (
        {},
        lambda root: write(root / 'our485/high/2.jpg'),
        r'low/2\.png: the ground truth may be 2\.\w+ or 2\.\w+ in .*high; keep one',
    ),
    'ground truth of another size': (
        {},
        lambda root: write(root / 'our485/high/2.png', (8, 12)),
        r'high/2\.png: the size must be 12×8 as that of .*low/2\.png, got 8×12',
    ),
    'no image': ({}, lambda root: (root / 'our485/low/2.png').write_text('text'), r'low/2\.png: expected an image'),
    'empty file': ({}, lambda root: (root / 'our485/high/2.png').write_bytes(b''), r'high/2\.png: expected an image'),
    'no list': (dict(ann_file='list.txt'), None, r'list\.txt: no such file'),
    'empty list': (
        dict(ann_file='list.txt'),
        lambda root: (root / 'list.txt').write_text('\n'),
        r'list\.txt is empty; expected one image per line',
    ),
    'a list that is none': (
        dict(ann_file='our485/low/1.png'),
        None,
        r'1\.png: expected .* but it is not UTF-8 text',
    ),
    'listed but missing': (
        dict(ann_file='list.txt'),
        lambda root: (root / 'list.txt').write_text('1\n3\n'),
        r"list\.txt, line 2: there is no image '3' in .*low",
    ),
    'listed twice': (
        dict(ann_file='list.txt'),
        lambda root: (root / 'list.txt').write_text('1\n2.png\n1.png\n'),
        r"list\.txt, line 3: image '1\.png' is listed twice",
    ),
    'ambiguous list': (
        dict(ann_file='list.txt'),
        lambda root: (write(root / 'our485/low/1.jpg'), (root / 'list.txt').write_text('1\n')),
        r"list\.txt, line 1: '1' may be 1\.\w+ or 1\.\w+ in .*low; add the suffix",
    ),
}


@pytest.mark.parametrize(('options', 'damage', 'message'), DAMAGE.values(), ids=DAMAGE)
def test_broken_folder(lol, options, damage, message):
    if damage:
        damage(lol)
    with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
        LowLightDataset(data_root=str(lol), **{'data_prefix': PREFIX, **options})
    assert '\n' not in str(error.value)


def test_turned_photograph(tmp_path):
    """The size of an image with an EXIF orientation is its size after loading."""
    from PIL import Image

    tag = Image.Exif()
    tag[0x0112] = 6
    for folder, size in (('low', (12, 8)), ('high', (8, 12))):
        (tmp_path / folder).mkdir()
        options = dict(exif=tag) if folder == 'low' else {}
        Image.new('RGB', size).save(tmp_path / folder / '1.jpg', **options)
    prefix = dict(img_path='low', gt_path='high')
    sample = build(tmp_path, data_prefix=prefix, pipeline=TEST_PIPELINE, test_mode=True)[0]
    assert sample['inputs'].shape == sample['data_samples'].gt.shape == (3, 12, 8)


def test_test_pipeline(lol):
    """The model receives RGB, and the ground truth has the channel order of its results."""
    dataset = build(lol, data_prefix=PREFIX, pipeline=TEST_PIPELINE, test_mode=True)
    packed = dataset[2]
    sample = packed['data_samples']
    assert packed['inputs'].dtype == sample.gt.dtype == torch.uint8
    assert packed['inputs'][:, 0, 0].tolist() == [10, 20, 30]  # BGR, as mmcv loads it
    assert sample.gt[:, 0, 0].tolist() == [130, 120, 110]
    assert (sample.img_id, sample.ori_shape) == ('10.png', (8, 12))
    assert Path(sample.img_path).is_file() and Path(sample.gt_path).is_file()
    prepared = RUASDataPreprocessor()({'inputs': [packed['inputs']], 'data_samples': [sample]})
    assert (prepared['inputs'][0][:, 0, 0] * 255).round().tolist() == [30, 20, 10]


def test_training_pipeline(lol):
    """Crops have the configured size and different positions, some are flipped, and no ground truth is read."""
    gradient = np.dstack([np.tile(np.arange(12, dtype=np.uint8), (8, 1))] * 3)
    for number in (1, 2, 10):
        cv2.imwrite(str(lol / f'our485/low/{number}.png'), gradient)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ruas_mm.RandomCrop', crop_size=(6, 4)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='ruas_mm.PackEnhanceInputs'),
    ]
    dataset = build(lol, data_prefix=dict(img_path='our485/low'), pipeline=pipeline)
    np.random.seed(0)
    rows = [dataset[0]['inputs'][0, 0].tolist() for _ in range(60)]
    assert {len(row) for row in rows} == {6} and dataset[0]['inputs'].shape == (3, 4, 6)
    steps = {tuple(np.diff(np.array(row))) for row in rows}
    assert steps == {(1,) * 5, (-1,) * 5}
    assert {min(row) for row in rows} == set(range(7))  # every place
    assert 'gt' not in dataset[0]['data_samples']


def test_crop_of_a_small_image_and_its_ground_truth():
    crop = TRANSFORMS.build(dict(type='ruas_mm.RandomCrop', crop_size=(6, 4)))
    places = np.arange(5 * 9 * 3).reshape(5, 9, 3)
    results = crop(dict(img=places, gt=places + 1000))
    assert (results['gt'] == results['img'] + 1000).all()
    assert results['img_shape'] == results['img'].shape[:2] == (4, 6)
    assert crop(dict(img=places[:2, :3]))['img'].shape == (2, 3, 3)
    with pytest.raises(ValueError, match='crop_size of RandomCrop must be at least 1 pixel'):
        TRANSFORMS.build(dict(type='ruas_mm.RandomCrop', crop_size=(0, 4)))
