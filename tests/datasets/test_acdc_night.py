import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg.datasets', reason='mmseg or mmcv is missing', exc_type=ImportError)

from mmseg.datasets import CityscapesDataset

from ruas_mm.datasets.segmentation import ACDCNightDataset
from ruas_mm.registry import DATASETS

BOTH = dict(img_path='rgb_anon/night', seg_map_path='gt/night')
NO_LABELS = dict(img_path='rgb_anon/night/test', seg_map_path=None)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ruas_mm.LoadSegLabels'),
    dict(type='mmseg.PackSegInputs'),
]
FRAMES = {
    'train': ('GOPR0351/GOPR0351_frame_000159', 'GOPR0351/GOPR0351_frame_001000', 'GP010376/GP010376_frame_000020'),
    'val': ('GOPR0356/GOPR0356_frame_000324',),
}


def make(path, value=0, mode='L'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (16, 9), value).save(path)


@pytest.fixture
def root(tmp_path):
    """The folders of ACDC, including the other files in them: further label formats, reference and test images."""
    for part, frames in FRAMES.items():
        for number, frame in enumerate(frames):
            make(tmp_path / f'rgb_anon/night/{part}/{frame}_rgb_anon.png', mode='RGB')
            make(tmp_path / f'rgb_anon/night/{part}_ref/{frame}_rgb_ref_anon.png', mode='RGB')
            make(tmp_path / f'gt/night/{part}/{frame}_gt_labelTrainIds.png', (number, 255)[number == 2])
            make(tmp_path / f'gt/night/{part}/{frame}_gt_labelIds.png', 33)
            make(tmp_path / f'gt/night/{part}/{frame}_gt_labelColor.png', mode='RGBA')
    make(tmp_path / 'rgb_anon/night/test/GOPR0355/GOPR0355_frame_000131_rgb_anon.png', mode='RGB')
    return tmp_path


def ids(dataset):
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


def write_list(root, *lines):
    (root / 'list.txt').write_text('\n'.join(lines))


def test_reads_the_official_layout(root):
    dataset = ACDCNightDataset(data_root=str(root))
    assert ids(dataset) == list(FRAMES['train'])
    info = dataset.get_data_info(0)
    assert info['img_path'] == str(root / f'rgb_anon/night/train/{FRAMES["train"][0]}_rgb_anon.png')
    assert info['seg_map_path'] == str(root / f'gt/night/train/{FRAMES["train"][0]}_gt_labelTrainIds.png')
    assert dataset.metainfo['classes'] == CityscapesDataset.METAINFO['classes']
    assert dataset.metainfo['palette'] == CityscapesDataset.METAINFO['palette']


def test_feeds_the_pipeline_of_mmseg(root):
    dataset = DATASETS.build(dict(type='ruas_mm.ACDCNightDataset', data_root=str(root), pipeline=PIPELINE))
    sample = dataset[1]
    assert sample['inputs'].shape == (3, 9, 16)
    assert sample['data_samples'].gt_sem_seg.data.shape == (1, 9, 16)
    assert [dataset[i]['data_samples'].gt_sem_seg.data.unique().tolist() for i in range(3)] == [[0], [1], [255]]


def test_validation_folder(root):
    prefix = dict(img_path='rgb_anon/night/val', seg_map_path='gt/night/val')
    assert ids(ACDCNightDataset(data_root=str(root), data_prefix=prefix)) == list(FRAMES['val'])


def test_list_draws_from_both_folders_in_its_order(root):
    expected = [f'val/{FRAMES["val"][0]}', *(f'train/{frame}' for frame in FRAMES['train'][:2])]
    write_list(root, expected[0], '', f'{expected[1]}_rgb_anon', f'{expected[2]}_rgb_anon.png')
    dataset = ACDCNightDataset('list.txt', data_root=str(root), data_prefix=BOTH)
    assert ids(dataset) == expected
    assert dataset.get_data_info(0)['seg_map_path'] == str(root / f'gt/night/{expected[0]}_gt_labelTrainIds.png')


def test_list_as_the_tool_draws_it(root):
    tool = Path(__file__).resolve().parents[2] / 'tools/dataset_tools/split.py'
    globs = [f'--glob=rgb_anon/night/{part}/*/*_rgb_anon.png' for part in FRAMES]
    done = subprocess.run([sys.executable, tool, root, *globs, '--train=4'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dataset = ACDCNightDataset('splits/train.txt', data_root=str(root), data_prefix=BOTH)
    assert set(ids(dataset)) == {f'{part}/{frame}' for part, frames in FRAMES.items() for frame in frames}


def test_some_classes_only(root):
    make(root / f'gt/night/train/{FRAMES["train"][0]}_gt_labelTrainIds.png', 13)
    metainfo = dict(classes=('car', 'sidewalk'))
    dataset = ACDCNightDataset(data_root=str(root), metainfo=metainfo, pipeline=PIPELINE)
    assert [dataset[i]['data_samples'].gt_sem_seg.data.unique().tolist() for i in range(3)] == [[0], [1], [255]]
    assert dataset.metainfo['palette'] == [[0, 0, 142], [244, 35, 232]]


def test_test_images_have_no_labels(root):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmseg.PackSegInputs')]
    dataset = ACDCNightDataset(data_root=str(root), data_prefix=NO_LABELS, test_mode=True, pipeline=pipeline)
    assert ids(dataset) == ['GOPR0355/GOPR0355_frame_000131']
    assert 'gt_sem_seg' not in dataset[0]['data_samples']
    with pytest.raises(ValueError, match='test_mode=True'):
        ACDCNightDataset(data_root=str(root), data_prefix=NO_LABELS)
    dataset = ACDCNightDataset(data_root=str(root), data_prefix=NO_LABELS, test_mode=True, pipeline=PIPELINE)
    with pytest.raises(ValueError, match='000131_rgb_anon.png has no label map'):
        dataset[0]


def test_subsets_and_laziness(root):
    assert len(ACDCNightDataset(data_root=str(root), indices=2)) == 2
    dataset = ACDCNightDataset(data_root=str(root / 'none'), lazy_init=True)
    assert len(dataset.metainfo['classes']) == 19
    with pytest.raises(FileNotFoundError, match='no such folder'):
        dataset.full_init()


def remove(root, pattern):
    for path in sorted(root.glob(pattern)):
        path.unlink()


FRAME = 'GOPR0351/GOPR0351_frame_000159'
DAMAGE = {
    'label': (
        lambda r: remove(r, f'gt/night/train/{FRAME}_gt_labelTrainIds.png'),
        {},
        rf'train/{FRAME}_rgb_anon.png: the label map .*gt/night/train/{FRAME}_gt_labelTrainIds.png is missing',
    ),
    'image': (
        lambda r: remove(r, f'rgb_anon/night/train/{FRAME}_rgb_anon.png'),
        {},
        rf'{FRAME}_gt_labelTrainIds.png has no image in .*rgb_anon/night/train',
    ),
    'image folder': (lambda r: (r / 'rgb_anon').rename(r / 'rgb'), {}, r'rgb_anon/night/train: no such folder'),
    'label folder': (lambda r: (r / 'gt').rename(r / 'labels'), {}, r'gt/night/train: no such folder'),
    'images': (
        lambda r: remove(r, 'rgb_anon/night/train/*/*'),
        {},
        r'rgb_anon/night/train contains no images \(\*_rgb_anon.png\)',
    ),
    'labels': (
        lambda r: remove(r, 'gt/night/train/*/*TrainIds.png'),
        {},
        r'gt/night/train contains no label maps \(\*_gt_labelTrainIds.png\)',
    ),
    'whole tree': (lambda r: None, dict(data_prefix=BOTH), r'GOPR0355_frame_000131_rgb_anon.png: the label map'),
    'list': (lambda r: None, dict(ann_file='none.txt'), r'none.txt: no such file; expected one image per line'),
    'empty list': (
        lambda r: write_list(r),
        dict(ann_file='list.txt'),
        r'list.txt is empty; expected one image per line',
    ),
    'binary list': (
        lambda r: (r / 'list.txt').write_bytes(b'\xff\xfe1'),
        dict(ann_file='list.txt'),
        r'not UTF-8 text',
    ),
    'unknown image': (
        lambda r: write_list(r, FRAME, 'GOPR0351/GOPR0351_frame_7'),
        dict(ann_file='list.txt'),
        r"list.txt, line 2: there is no image 'GOPR0351/GOPR0351_frame_7' in .*rgb_anon/night/train",
    ),
    'other ending': (
        lambda r: write_list(r, f'{FRAME}_rgb_anon.jpg'),
        dict(ann_file='list.txt'),
        r'list.txt, line 1: there is no image .*jpg',
    ),
    'list of both folders': (
        lambda r: write_list(r, f'train/{FRAME}'),
        dict(ann_file='list.txt'),
        rf"list.txt, line 1: there is no image 'train/{FRAME}' in .*rgb_anon/night/train",
    ),
    'twice': (
        lambda r: write_list(r, FRAME, '', f'{FRAME}_rgb_anon'),
        dict(ann_file='list.txt'),
        rf"list.txt, line 3: image '{FRAME}_rgb_anon' is listed twice",
    ),
    'listed without label': (
        lambda r: write_list(r, 'test/GOPR0355/GOPR0355_frame_000131'),
        dict(ann_file='list.txt', data_prefix=BOTH),
        r'GOPR0355_frame_000131_rgb_anon.png: the label map .* is missing',
    ),
}


@pytest.mark.parametrize(('damage', 'options', 'message'), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_at_once(root, damage, options, message):
    damage(root)
    with pytest.raises((FileNotFoundError, ValueError), match=message) as caught:
        ACDCNightDataset(data_root=str(root), **options)
    assert '\n' not in str(caught.value)


def test_label_ids_instead_of_train_ids(root):
    make(root / f'gt/night/train/{FRAME}_gt_labelTrainIds.png', 33)
    dataset = ACDCNightDataset(data_root=str(root), pipeline=PIPELINE)
    with pytest.raises(ValueError, match=r'labelTrainIds.png: ids must be from 0 to 18, or 255 .* got 33'):
        dataset[0]
    assert np.unique(dataset[1]['data_samples'].gt_sem_seg.data) == [1]
