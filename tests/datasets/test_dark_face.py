import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet.datasets', reason='mmdet or mmcv is missing', exc_type=ImportError)

from ruas_mm.datasets.detection import DarkFaceDataset, parse_label
from ruas_mm.registry import DATASETS

DATA = Path(__file__).resolve().parents[3] / 'shared/data/darkface'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='needs DARK FACE in ../shared/data/darkface')


@pytest.fixture
def root(tmp_path):
    """Images 1, 2 and 10 with one, no and two faces; image 10 is small."""
    (tmp_path / 'image').mkdir()
    (tmp_path / 'label').mkdir()
    for name, size, text in (
        ('1', (64, 48), '1\n1 2 31 42\n'),
        ('2', (64, 48), '0\n'),
        ('10', (20, 10), '2\n0 0 20 10\n3 3 4 4'),
    ):
        Image.new('RGB', size).save(tmp_path / f'image/{name}.png')
        (tmp_path / f'label/{name}.txt').write_text(text)
    return tmp_path


def ids(dataset):
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


def test_reads_the_official_layout_in_numerical_order(root):
    dataset = DarkFaceDataset(data_root=str(root))
    assert ids(dataset) == ['1', '2', '10']
    info = dataset.get_data_info(0)
    assert info['instances'] == [dict(bbox=[1, 2, 31, 42], bbox_label=0, ignore_flag=0)]
    assert (info['width'], info['height']) == (64, 48)
    assert info['img_path'] == str(root / 'image/1.png')
    assert dataset.get_data_info(1)['instances'] == []
    assert dataset.get_cat_ids(2) == [0, 0]
    assert dataset.metainfo['classes'] == ('face',)


def test_feeds_the_pipeline_of_mmdet(root):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.PackDetInputs'),
    ]
    dataset = DATASETS.build(dict(type='ruas_mm.DarkFaceDataset', data_root=str(root), pipeline=pipeline))
    sample = dataset[2]
    assert sample['inputs'].shape == (3, 10, 20)
    assert sample['data_samples'].gt_instances.bboxes.tensor.tolist() == [[0, 0, 20, 10], [3, 3, 4, 4]]
    assert len(dataset[1]['data_samples'].gt_instances) == 0


@pytest.mark.parametrize(
    ('filter_cfg', 'test_mode', 'expected'),
    [
        (None, False, ['1', '2', '10']),
        (dict(filter_empty_gt=True), False, ['1', '10']),
        (dict(filter_empty_gt=True, min_size=32), False, ['1']),
        (dict(min_size=32), False, ['1', '2']),
        (dict(filter_empty_gt=True, min_size=32), True, ['1', '2', '10']),
    ],
)
def test_filter(root, filter_cfg, test_mode, expected):
    assert ids(DarkFaceDataset(data_root=str(root), filter_cfg=filter_cfg, test_mode=test_mode)) == expected


def test_subsets_and_laziness(root):
    assert ids(DarkFaceDataset(data_root=str(root), indices=2)) == ['1', '2']
    dataset = DarkFaceDataset(data_root=str(root), lazy_init=True, serialize_data=False)
    assert not dataset.data_list
    dataset.full_init()
    assert ids(dataset.get_subset([2, 0])) == ['10', '1']


def test_list_takes_ids_and_names_in_its_order(root):
    (root / 'splits').mkdir()
    (root / 'splits/some.txt').write_text('10\n1.png\n\n')
    assert ids(DarkFaceDataset('splits/some.txt', data_root=str(root))) == ['10', '1']


def test_test_set_without_labels(root):
    dataset = DarkFaceDataset(data_root=str(root), data_prefix=dict(label_path=None), test_mode=True)
    assert ids(dataset) == ['1', '2', '10']
    assert dataset.get_data_info(0)['instances'] == []
    with pytest.raises(ValueError, match='test_mode=True'):
        DarkFaceDataset(data_root=str(root), data_prefix=dict(label_path=None))


def test_photograph_that_is_stored_turned(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48)).save(root / 'image/3.jpg', exif=exif)
    (root / 'label/3.txt').write_text('1\n0 0 48 64\n')
    info = DarkFaceDataset(data_root=str(root)).get_data_info(2)
    assert (info['width'], info['height']) == (48, 64)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r"2.txt, line 1: the first line must be the number of faces, got ''"),
        (b'\n\n', r"2.txt, line 1: the first line must be the number of faces, got ''"),
        (b'many\n', r"2.txt, line 1: the first line must be the number of faces, got 'many'"),
        (b'-1\n', r"2.txt, line 1: the first line must be the number of faces, got '-1'"),
        (b'1 2 3 4\n', r"2.txt, line 1: the first line must be the number of faces, got '1 2 3 4'"),
        (b'2\n1 1 5 5\n', r'2.txt, line 1: the number of boxes must be 2 as stated here, got 1'),
        (b'0\n1 1 5 5\n', r'2.txt, line 1: the number of boxes must be 0 as stated here, got 1'),
        (b'2\n1 1 5 5\n1 1 5\n', r"2.txt, line 3: a box must be four decimal numbers .*, got '1 1 5'"),
        (b'1\n1 1 5 5 0.9\n', r'2.txt, line 2: a box must be four decimal numbers'),
        (b'2\n1 1 5 5\n1 1 5 five\n', r'2.txt, line 3: a box must be four decimal numbers'),
        (b'2\n\n1 1 5 5\n', r"2.txt, line 2: a box must be four decimal numbers .*, got ''"),
        (b'1\n1 1 5 nan\n', r'2.txt, line 2: a box must be four decimal numbers'),
        (b'1\n1 1 inf 5\n', r'2.txt, line 2: a box must be four decimal numbers'),
        (b'1\n1 1 41e90 5\n', r"2.txt, line 2: a box must be four decimal numbers .*, got '1 1 41e90 5'"),
        (b'1\n1 1 1_0 5\n', r'2.txt, line 2: a box must be four decimal numbers'),
        (b'1' * 5000, r'2.txt, line 1: the first line must be the number of faces'),
        (b'1\n5 1 1 5\n', r'2.txt, line 2: a box must have x1 < x2 and y1 < y2'),
        (b'1\n1 1 5 1\n', r'2.txt, line 2: a box must have x1 < x2 and y1 < y2'),
        (b'1\n1 1 65 5\n', r'2.txt, line 2: a box must be inside the 64×48 image, got "1 1 65 5"'),
        (b'1\n-1 1 6 5\n', r'2.txt, line 2: a box must be inside the 64×48 image'),
        (b'\xff\xfe1\n', r'2.txt: expected .* but it is not UTF-8 text'),
    ],
)
def test_broken_label(root, content, message):
    (root / 'label/2.txt').write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        DarkFaceDataset(data_root=str(root))
    assert '\n' not in str(error.value)


def test_label_of_other_editors(tmp_path):
    path = tmp_path / '1.txt'
    path.write_bytes(b'\xef\xbb\xbf2\r\n1.5 2 3 4 \r\n\t5 6 7 8\r\n\r\n')
    boxes = parse_label(str(path))
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[1.5, 2, 3, 4], [5, 6, 7, 8]]
    path.write_text('0')
    assert parse_label(str(path)).shape == (0, 4)


def write_list(root, text):
    (root / 'list.txt').write_text(text)


@pytest.mark.parametrize(
    ('damage', 'ann_file', 'error', 'message'),
    [
        (
            lambda r: (r / 'label/2.txt').unlink(),
            '',
            FileNotFoundError,
            r'label/2.txt: no such file; expected the number of faces',
        ),
        (
            lambda r: (r / 'image/2.png').unlink(),
            '',
            FileNotFoundError,
            r'label/2.txt has no image in .*image',
        ),
        (
            lambda r: write_list(r, '1\n7\n'),
            'list.txt',
            FileNotFoundError,
            r"list.txt, line 2: there is no image '7' in ",
        ),
        (
            lambda r: write_list(r, '1.jpg\n'),
            'list.txt',
            FileNotFoundError,
            r"list.txt, line 1: there is no image '1.jpg' in ",
        ),
        (lambda r: write_list(r, '1\n1.png\n'), 'list.txt', ValueError, r"line 2: image '1.png' is listed twice"),
        (lambda r: write_list(r, '\n'), 'list.txt', ValueError, r'list.txt is empty; expected one image per line'),
        (lambda r: None, 'none.txt', FileNotFoundError, r'none.txt: no such file; expected one image per line'),
        (lambda r: (r / 'image').rename(r / 'images'), '', FileNotFoundError, r'image: no such folder'),
        (
            lambda r: [p.unlink() for p in r.glob('image/*')],
            '',
            FileNotFoundError,
            r'image contains no images',
        ),
        (lambda r: (r / 'image/2.png').write_bytes(b'no'), '', ValueError, r'2.png: expected an image'),
        (lambda r: (r / 'image/2.jpg').touch(), '', ValueError, r"2.jpg and 2.png have the same id '2'"),
    ],
)
def test_broken_folder(root, damage, ann_file, error, message):
    damage(root)
    with pytest.raises(error, match=message) as caught:
        DarkFaceDataset(ann_file, data_root=str(root))
    assert '\n' not in str(caught.value)


@needs_data
def test_real_images():
    prefix = dict(img_path='images', label_path='labels')
    dataset = DarkFaceDataset(data_root=str(DATA), data_prefix=prefix)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert len(infos) == 18
    assert sum(len(info['instances']) for info in infos) == 99
    assert {(info['width'], info['height']) for info in infos} == {(1080, 720)}


@needs_data
def test_all_official_labels(tmp_path):
    with zipfile.ZipFile(DATA / 'labels_all6000.zip') as archive:
        archive.extractall(tmp_path)
    files = list(tmp_path.rglob('*.txt'))
    boxes = np.concatenate([parse_label(str(file)) for file in files])
    assert len(files) == 6000
    assert len(boxes) == 43849
    assert (boxes >= 0).all() and (boxes[:, 2] <= 1080).all() and (boxes[:, 3] <= 720).all()
