from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg.datasets', reason='mmseg or mmcv is missing', exc_type=ImportError)

from ruas_mm.datasets.segmentation import CamVidDataset
from ruas_mm.registry import DATASETS

DATA = Path(__file__).resolve().parents[3] / 'shared/data/camvid'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='needs CamVid in ../shared/data/camvid')
VAL = dict(img_path='val', seg_map_path='valannot')


def pipeline(load='ruas_mm.LoadSegLabels'):
    return [dict(type='LoadImageFromFile'), dict(type=load), dict(type='mmseg.PackSegInputs')]


@pytest.fixture
def root(tmp_path):
    """One image in each format; the label maps contain the values 0 to 11."""
    for part, names in dict(train=('0001TP_7.png', '0001TP_10.jpg'), val=('0016E5_1.png',)).items():
        (tmp_path / part).mkdir()
        (tmp_path / f'{part}annot').mkdir()
        for name in names:
            Image.new('RGB', (4, 3)).save(tmp_path / part / name)
            labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
            Image.fromarray(labels).save((tmp_path / f'{part}annot' / name).with_suffix('.png'))
    return tmp_path


def ids(dataset):
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


def test_reads_segnet_s_layout(root):
    dataset = CamVidDataset(data_root=str(root))
    assert ids(dataset) == ['0001TP_7', '0001TP_10']
    info = dataset.get_data_info(1)
    assert info['img_path'] == str(root / 'train/0001TP_10.jpg')
    assert info['seg_map_path'] == str(root / 'trainannot/0001TP_10.png')
    assert ids(CamVidDataset(data_root=str(root), data_prefix=VAL)) == ['0016E5_1']
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 11


@pytest.mark.parametrize('load', ['ruas_mm.LoadSegLabels', 'mmseg.LoadAnnotations'])
def test_void_is_ignored(root, load):
    dataset = DATASETS.build(dict(type='ruas_mm.CamVidDataset', data_root=str(root), pipeline=pipeline(load)))
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 3, 4)
    assert sample['data_samples'].gt_sem_seg.data.flatten().tolist() == [*range(11), 255]


def test_some_classes_only(root):
    dataset = CamVidDataset(data_root=str(root), metainfo=dict(classes=('car', 'sky')), pipeline=pipeline())
    labels = dataset[0]['data_samples'].gt_sem_seg.data.flatten().tolist()
    assert labels == [1, *[255] * 7, 0, *[255] * 3]
    assert dataset.metainfo['palette'] == [[64, 0, 128], [128, 128, 128]]


def test_list_takes_ids_and_names(root):
    (root / 'list.txt').write_text('0001TP_10.jpg\n0001TP_7\n')
    assert ids(CamVidDataset('list.txt', data_root=str(root))) == ['0001TP_10', '0001TP_7']
    (root / 'list.txt').write_text('0001TP_10.png\n')
    with pytest.raises(FileNotFoundError, match=r"list.txt, line 1: there is no image '0001TP_10.png' in .*train"):
        CamVidDataset('list.txt', data_root=str(root))


def test_errors(root):
    with pytest.raises(FileNotFoundError, match=r'val/0016E5_1.png: the label map .*trainannot/0016E5_1.png is missi'):
        CamVidDataset(data_root=str(root), data_prefix=dict(img_path='val'))
    Image.new('RGB', (4, 3)).save(root / 'train/0001TP_7.jpg')
    with pytest.raises(ValueError, match=r"0001TP_7.jpg and 0001TP_7.png have the same id '0001TP_7'"):
        CamVidDataset(data_root=str(root))


def test_labels_of_other_forms(root):
    dataset = CamVidDataset(data_root=str(root), pipeline=pipeline())
    Image.new('L', (4, 3), 12).save(root / 'trainannot/0001TP_7.png')
    with pytest.raises(ValueError, match=r'0001TP_7.png: ids must be from 0 to 11, or 255 to be ignored, got 12\.'):
        dataset[0]
    Image.new('RGB', (4, 3)).save(root / 'trainannot/0001TP_7.png')
    with pytest.raises(ValueError, match=r'0001TP_7.png: a label map must have one 8-bit channel'):
        dataset[0]


@needs_data
def test_real_frames():
    assert len(CamVidDataset(data_root=str(DATA))) == 367
    dataset = CamVidDataset(data_root=str(DATA), data_prefix=VAL, pipeline=pipeline(), indices=3)
    for sample in map(dataset.__getitem__, range(3)):
        assert sample['data_samples'].gt_sem_seg.data.shape == (1, 360, 480)
        assert {0, 1, 3, 255} <= set(sample['data_samples'].gt_sem_seg.data.unique().tolist()) <= {*range(11), 255}
