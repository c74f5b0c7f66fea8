"""Damaged and missing images in the data sets during training."""

import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

pytest.importorskip('mmdet.datasets', reason='mmdet or mmcv is missing', exc_type=ImportError)
pytest.importorskip('mmseg.datasets', reason='mmseg or mmcv is missing', exc_type=ImportError)

import mmengine.registry

from ruas_mm.registry import DATASETS

BBGT = '% bbGt version=3\nCar 1 2 30 40 0 0 0 0 0 0 0\n'
LOAD = dict(type='LoadImageFromFile')
# Options, the files of an image and their text; without text, a picture. The first is the image.
LAYOUTS = {
    'DarkFaceDataset': (dict(pipeline=[LOAD]), {'image/1.png': None, 'label/1.txt': '1\n1 2 31 42\n'}),
    'ExDarkDataset': (
        dict(class_list=None, pipeline=[dict(LOAD, color_type='color_ignore_orientation')]),
        {'ExDark/Car/1.png': None, 'ExDark_Annno/Car/1.png.txt': BBGT},
    ),
    'LowLightDataset': (dict(pipeline=[LOAD]), {'1.png': None}),
    'LowLightDataset with ground truth': (
        dict(data_prefix=dict(img_path='low', gt_path='high'), pipeline=[LOAD, dict(type='LoadGroundTruth')]),
        {'high/1.png': None, 'low/1.png': None},
    ),
    'CamVidDataset': (
        dict(pipeline=[LOAD, dict(type='LoadSegLabels')]),
        {'train/1.png': None, 'trainannot/1.png': 0},
    ),
    'CamVidDataset, label map': (
        dict(pipeline=[LOAD, dict(type='LoadSegLabels')]),
        {'trainannot/1.png': 0, 'train/1.png': None},
    ),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """A data set with one image, and the file that the test damages."""
    options, files = LAYOUTS[request.param]
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            shape = (48, 64) if content == 0 else (48, 64, 3)
            Image.fromarray(np.random.default_rng(0).integers(0, 11, shape, np.uint8)).save(path)
    name = request.param.split()[0].rstrip(',')
    return dict(type=f'ruas_mm.{name}', data_root=str(tmp_path), **options), tmp_path / next(iter(files))


def build(config):
    with mmengine.registry.DefaultScope.overwrite_default_scope('ruas_mm'):
        return DATASETS.build(config)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize('test_mode', [False, True])
def test_half_an_image(layout, test_mode):
    config, path = layout
    dataset = build(dict(config, test_mode=test_mode))
    assert 'img' in dataset[0]
    halve(path)
    what = 'a label map' if 'annot' in str(path) else 'an image'
    message = rf'^{path}: expected {what}, but it cannot be read \(.+\)\.$'
    with pytest.raises(ValueError, match=message):
        dataset[0]


@pytest.mark.parametrize('layout', ['DarkFaceDataset'], indirect=True)
def test_half_an_image_in_a_worker_process(layout):
    """The tools print the last line of the traceback."""
    config, path = layout
    dataset = build(config)
    halve(path)
    with pytest.raises(ValueError, match='Caught ValueError in DataLoader worker') as caught, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of processes that fork beside threads
        next(iter(DataLoader(dataset, num_workers=1)))
    error = str(caught.value).rstrip().rpartition('\n')[2]
    assert error.startswith(f'ValueError: {path}: expected an image, but it cannot be read (')


def test_an_image_that_goes_away(layout):
    config, path = layout
    dataset = build(config)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf'^{path}: no such file; expected an? .+\.$'):
        dataset[0]


def test_too_large_an_image(layout):
    """The header states a size above Pillow's limit, so Pillow does not open the file."""
    config, path = layout
    content = bytearray(path.read_bytes())
    content[16:24] = 2 * (60000).to_bytes(4, 'big')
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf'^{path}: expected an? .+, but it cannot be read \(.*decompression bomb DOS.*\)\.$'
    ):
        build(config)[0]


def test_other_errors_of_a_pipeline_stay(layout):
    config, _ = layout
    dataset = build(config)
    dataset.pipeline.transforms.append(lambda results: results['nothing'])
    with pytest.raises(KeyError, match='nothing'):
        dataset[0]


NO_BOXES = {'DarkFaceDataset': ('label/1.txt', '0\n'), 'ExDarkDataset': ('ExDark_Annno/Car/1.png.txt', BBGT[:17])}


@pytest.mark.parametrize('layout', NO_BOXES, indirect=True)
def test_no_image_for_training(layout, tmp_path):
    config, _ = layout
    label, text = NO_BOXES[config['type'].removeprefix('ruas_mm.')]
    with pytest.raises(ValueError, match=r'got none among 1 with at least 1 boxes and 100 pixels on each side\.$'):
        build(dict(config, filter_cfg=dict(filter_empty_gt=True, min_size=100)))
    (tmp_path / label).write_text(text)
    with pytest.raises(
        ValueError, match=rf'^{tmp_path}/.*: filter_cfg must keep at least one image, got none among 1 '
    ):
        build(dict(config, filter_cfg=dict(filter_empty_gt=True)))
    assert len(build(dict(config, filter_cfg=dict(filter_empty_gt=True), test_mode=True))) == 1
    assert len(build(config)) == 1
