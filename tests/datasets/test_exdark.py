import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet.datasets', reason='mmdet or mmcv is missing', exc_type=ImportError)

import ruas_mm
from ruas_mm.datasets.detection import ExDarkDataset, parse_bbgt
from ruas_mm.registry import DATASETS, METRICS

SPLIT = Path(__file__).resolve().parents[2] / 'tools/dataset_tools/split.py'
DATA = Path(__file__).resolve().parents[3] / 'shared/data/exdark'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='needs ExDark in ../shared/data/exdark')

HEADER = '% bbGt version=3\n'
ZEROS = ' 0 0 0 0 0 0 0\n'
# Folder, name of the image, that of its label file and in the list, size, objects, codes.
IMAGES = [
    ('Bicycle', '2015_00001.png', '2015_00001.png', (64, 48), ['Bicycle 1 2 30 40', 'Bus 3 4 5 6'], '1 2 1 1'),
    ('Bicycle', '2015_00391.jpg', '2015_00391.JPG', (64, 48), ['Bicycle 0 0 10 10'], '1 6 2 1'),
    ('Chair', '2015_04089.JPEG', '2015_04089.JPEG', (64, 48), ['Chair -2 10 20 50'], '7 5 1 2'),
    ('Motorbike', '2015_05894.jpg', '2015_05894.jpg', (64, 48), [], '10 1 2 3'),
    ('Table', '2015_06933.jpg', '2015_06933.jpg', (20, 10), ['Cup 3 3 1 1', 'Table 0 0 20 10'], '12 10 1 3'),
]


def write_label(path, objects):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + ''.join(box + ZEROS for box in objects))


@pytest.fixture
def root(tmp_path):
    rows = ['Name | Class | Light | In/Out | Train/Val/Test']
    for folder, name, listed, size, objects, codes in IMAGES:
        (tmp_path / 'ExDark' / folder).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size).save(tmp_path / 'ExDark' / folder / name)
        write_label(tmp_path / 'ExDark_Annno' / folder / f'{name}.txt', objects)
        rows.append(f'{listed} {codes}')
    (tmp_path / 'imageclasslist.txt').write_bytes('\r\n'.join(rows).encode())
    return tmp_path


def ids(dataset):
    return [dataset.get_data_info(i)['img_id'].removeprefix('2015_') for i in range(len(dataset))]


ALL = ['00001', '00391', '04089', '05894', '06933']


def test_reads_the_official_layout(root):
    dataset = ExDarkDataset(data_root=str(root))
    assert ids(dataset) == ALL
    info = dataset.get_data_info(0)
    assert info['instances'] == [
        dict(bbox=[1, 2, 31, 42], bbox_label=0, ignore_flag=0),
        dict(bbox=[3, 4, 8, 10], bbox_label=3, ignore_flag=0),  # a bus in the folder of bicycles
    ]
    assert (info['width'], info['height']) == (64, 48)
    assert info['img_path'] == str(root / 'ExDark/Bicycle/2015_00001.png')
    assert (info['light'], info['place']) == ('Ambient', 'Indoor')
    last = dataset.get_data_info(4)
    assert (last['light'], last['place']) == ('Twilight', 'Indoor')
    assert dataset.get_cat_ids(4) == [7, 11]
    assert dataset.get_data_info(3)['instances'] == []
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 12
    assert ruas_mm.ExDarkDataset is ExDarkDataset


def test_boxes_are_cut_at_the_border(root):
    assert ExDarkDataset(data_root=str(root)).get_data_info(2)['instances'][0]['bbox'] == [0, 10, 18, 48]


@pytest.mark.parametrize(
    ('subset', 'expected'),
    [
        (None, ALL),
        ('train', ['00001', '00391']),
        ('val', ['04089']),
        ('test', ['05894', '06933']),
        (('train', 'val'), ['00001', '00391', '04089']),
        (['test', 'train'], ['00001', '00391', '05894', '06933']),
    ],
)
def test_official_subsets(root, subset, expected):
    assert ids(ExDarkDataset(data_root=str(root), subset=subset)) == expected


def test_list_takes_names_and_ids_in_its_order(root):
    (root / 'splits').mkdir()
    (root / 'splits/some.txt').write_text('Table/2015_06933\n2015_00391.JPG\n\n2015_00001\nChair/2015_04089.jpeg\n')
    chosen = ExDarkDataset('splits/some.txt', data_root=str(root))
    assert ids(chosen) == ['06933', '00391', '00001', '04089']
    assert ids(ExDarkDataset('splits/some.txt', data_root=str(root), subset='train')) == ['00391', '00001']


def test_lists_of_the_split_tool(root):
    command = [sys.executable, SPLIT, root, '--glob', 'ExDark/*/*', '--train', '3', '--test', '2']
    subprocess.run(command, check=True, capture_output=True)
    parts = [ids(ExDarkDataset(f'splits/{part}.txt', data_root=str(root))) for part in ('train', 'test')]
    assert [len(part) for part in parts] == [3, 2]
    assert sorted(parts[0] + parts[1]) == ALL


def test_without_the_list_of_classes(root):
    (root / 'imageclasslist.txt').unlink()
    dataset = ExDarkDataset(data_root=str(root), class_list=None)
    assert ids(dataset) == ALL
    assert 'light' not in dataset.get_data_info(0)
    with pytest.raises(ValueError, match="subset='train' needs class_list"):
        ExDarkDataset(data_root=str(root), class_list=None, subset='train')
    (root / 'ExDark/Chair/2015_04089.JPEG').unlink()
    with pytest.raises(FileNotFoundError, match=r'2015_04089.JPEG.txt: 2015_04089 has no image in '):
        ExDarkDataset(data_root=str(root), class_list=None)


def test_other_folders(root):
    """File names in another spelling, and a copy without class folders."""
    (root / 'ExDark_Annno').rename(root / 'ExDark_Anno')
    (root / 'flat').mkdir()
    for image in (root / 'ExDark').glob('*/*'):
        image.rename(root / 'flat' / image.name)
    (root / 'flat/.2015_1.jpg').touch()
    (root / 'flat/Thumbs.db').touch()
    dataset = ExDarkDataset(data_root=str(root), data_prefix=dict(img_path='flat', label_path='ExDark_Anno'))
    assert ids(dataset) == ALL
    assert dataset.get_cat_ids(0) == [0, 3]


def test_some_classes(root):
    dataset = ExDarkDataset(
        data_root=str(root), metainfo=dict(classes=('Bus', 'Cup')), filter_cfg=dict(filter_empty_gt=True)
    )
    assert ids(dataset) == ['00001', '06933']
    assert [dataset.get_cat_ids(i) for i in range(2)] == [[0], [1]]
    with pytest.raises(ValueError, match='classes in metainfo must be among Bicycle, .*, got Bus, Face'):
        ExDarkDataset(data_root=str(root), metainfo=dict(classes=('Bus', 'Face')))


@pytest.mark.parametrize(
    ('filter_cfg', 'test_mode', 'expected'),
    [
        (dict(filter_empty_gt=True), False, ['00001', '00391', '04089', '06933']),
        (dict(filter_empty_gt=True, min_size=32), False, ['00001', '00391', '04089']),
        (dict(min_size=32), False, ['00001', '00391', '04089', '05894']),
        (dict(filter_empty_gt=True, min_size=32), True, ALL),
    ],
)
def test_filter(root, filter_cfg, test_mode, expected):
    assert ids(ExDarkDataset(data_root=str(root), filter_cfg=filter_cfg, test_mode=test_mode)) == expected


def test_boxes_count_the_pixels_as_stored(root):
    """Boxes fit also a photograph with an EXIF orientation, if loaded as the docstring of the class recommends."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48)).save(root / 'ExDark/Bicycle/2015_00391.jpg', exif=exif)
    pipeline = [
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'light', 'place')),
    ]
    config = dict(type='ruas_mm.ExDarkDataset', data_root=str(root), pipeline=pipeline)
    dataset = DATASETS.build(config)
    sample = dataset[1]
    assert sample['inputs'].shape == (3, 48, 64)
    assert sample['data_samples'].gt_instances.bboxes.tensor.tolist() == [[0, 0, 10, 10]]
    assert sample['data_samples'].light == 'Strong'
    assert dataset.get_data_info(1)['width'] == 64


def test_metric_of_voc(root):
    """mmdet's own metric accepts this data set, class by class; perfect boxes give 1."""
    from mmengine.structures import InstanceData

    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.PackDetInputs'),
    ]
    dataset = ExDarkDataset(data_root=str(root), test_mode=True, pipeline=pipeline)

    def evaluate(drop):
        metric = METRICS.build(dict(type='mmdet.VOCMetric', metric='mAP', eval_mode='area'))
        metric.dataset_meta = dataset.metainfo
        for item in dataset:
            sample = item['data_samples']
            truth = sample.gt_instances
            kept = truth.labels != drop
            sample.gt_instances = InstanceData(bboxes=truth.bboxes.tensor, labels=truth.labels)
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor[kept], labels=truth.labels[kept], scores=torch.ones(int(kept.sum()))
            )
            sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
            metric.process({}, [sample.to_dict()])
        return metric.evaluate(len(dataset))['pascal_voc/AP50']

    assert evaluate(drop=-1) == 1
    assert evaluate(drop=0) == pytest.approx(4 / 5)  # one of the five classes that occur


def test_ignored_object(tmp_path):
    path = tmp_path / '1.txt'
    path.write_bytes(b'\xef\xbb\xbf% bbGt version=3\r\nCar 1.5 2 3 4 0 0 0 0 0 1 0 \r\n\r\n')
    assert parse_bbgt(str(path)) == [('Car', (1.5, 2, 4.5, 6), True)]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'jpg.txt, line 1: the header must be "% bbGt version=3", got \'\''),
        (b'Car 1 1 5 5 0 0 0 0 0 0 0\n', r'jpg.txt, line 1: the header must be "% bbGt version=3", got \'Car '),
        (b'% bbGt version=2\n', r"line 1: .*got '% bbGt version=2'"),
        (
            b'% bbGt version=3\nCar 1 1 5 5\n',
            r"line 2: an object must be a class and 11 decimal numbers, got 'Car 1 1 5 5'",
        ),
        (
            b'% bbGt version=3\n\nCar 1 1 5 5 0 0 0 0 0 0 0\n',
            r"line 2: an object must be a class and 11 decimal numbers, got ''",
        ),
        (b'% bbGt version=3\n1 1 5 5 0 0 0 0 0 0 0\n', r'line 2: an object must be a class and 11 decimal numbers'),
        (
            b'% bbGt version=3\nCar 1 1 5 five 0 0 0 0 0 0 0\n',
            r'line 2: an object must be a class and 11 decimal numbers',
        ),
        (
            b'% bbGt version=3\nCar 1 1 5 nan 0 0 0 0 0 0 0\n',
            r'line 2: an object must be a class and 11 decimal numbers',
        ),
        (
            b'% bbGt version=3\nCar 1 1 5 1e1 0 0 0 0 0 0 0\n',
            r'line 2: an object must be a class and 11 decimal numbers',
        ),
        (b'% bbGt version=3\nCar 1 1 -5 5 0 0 0 0 0 0 0\n', r'line 2: the width and height of a box must be positive'),
        (b'% bbGt version=3\nCar 1 1 5 0 0 0 0 0 0 0 0\n', r'line 2: the width and height of a box must be positive'),
        (b'% bbGt version=3\nTram 1 1 5 5 0 0 0 0 0 0 0\n', r"line 2: the class must be among .*, got 'Tram'"),
        (b'% bbGt version=3\ncar 1 1 5 5 0 0 0 0 0 0 0\n', r"line 2: the class must be among .*, got 'car'"),
        (
            b'% bbGt version=3\nCar 64 1 5 5 0 0 0 0 0 0 0\n',
            r'line 2: a box must overlap the 64×48 image, got x from 64 to 69 and y from 1 to 6',
        ),
        (b'\xff\xfe1\n', r'jpg.txt: expected .* but it is not UTF-8 text'),
    ],
)
def test_broken_label(root, content, message):
    (root / 'ExDark_Annno/Motorbike/2015_05894.jpg.txt').write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        ExDarkDataset(data_root=str(root))
    assert '\n' not in str(error.value)


def append(path, text):
    path.write_text(path.read_text() + text)


LIST = 'imageclasslist.txt'
DAMAGE = {
    'image': (
        lambda r: (r / 'ExDark/Chair/2015_04089.JPEG').unlink(),
        dict(),
        r'imageclasslist.txt, line 4: 2015_04089 has no image in .*ExDark;',
    ),
    'label': (
        lambda r: (r / 'ExDark_Annno/Chair/2015_04089.JPEG.txt').unlink(),
        dict(subset='val'),
        r'imageclasslist.txt, line 4: 2015_04089 has no label file in .*ExDark_Annno;',
    ),
    'broken image': (
        lambda r: (r / 'ExDark/Chair/2015_04089.JPEG').write_bytes(b'no'),
        dict(),
        r'2015_04089.JPEG: expected an image',
    ),
    'second image': (
        lambda r: (r / 'ExDark/Table/2015_00001.jpg').touch(),
        dict(),
        r'Table/2015_00001.jpg and .*Bicycle/2015_00001.png are both the image of 2015_00001; keep one',
    ),
    'second label': (
        lambda r: write_label(r / 'ExDark_Annno/Table/2015_00001.txt', []),
        dict(),
        r'Table/2015_00001.txt and .* are both the label file of 2015_00001',
    ),
    'image folder': (lambda r: (r / 'ExDark').rename(r / 'Dark'), dict(), r'ExDark: no such folder'),
    'label folder': (lambda r: (r / 'ExDark_Annno').rename(r / 'L'), dict(), r'ExDark_Annno: no such folder'),
    'no images': (
        lambda r: [path.unlink() for path in r.glob('ExDark/*/*')],
        dict(),
        r'ExDark contains no images',
    ),
    'class list': (
        lambda r: (r / LIST).unlink(),
        dict(),
        r'imageclasslist.txt: no such file; expected the header "Name',
    ),
    'empty class list': (
        lambda r: (r / LIST).write_text(''),
        dict(),
        r'imageclasslist.txt contains no images; expected',
    ),
    'code': (
        lambda r: append(r / LIST, '\n2015_1.jpg 13 1 1 1'),
        dict(),
        r'imageclasslist.txt, line 7: a line must be an image and four codes .*got .2015_1.jpg 13 1 1 1',
    ),
    'too few codes': (
        lambda r: append(r / LIST, '\n2015_1.jpg 1 1 1'),
        dict(),
        r'line 7: a line must be an image and four',
    ),
    'no code': (
        lambda r: append(r / LIST, '\n2015_1.jpg 1 0 1 1'),
        dict(),
        r'line 7: a line must be an image and four',
    ),
    'twice in the class list': (
        lambda r: append(r / LIST, '\n2015_00001.JPG 1 1 1 1'),
        dict(),
        r'imageclasslist.txt, line 7: image 2015_00001 is listed twice',
    ),
    'not in the class list': (
        lambda r: [(r / LIST).write_text('2015_00001.png 1 1 1 1'), (r / 'l').write_text('2015_00391')],
        dict(ann_file='l'),
        r'l, line 1: 2015_00391 is not in imageclasslist.txt; set class_list=None',
    ),
    'list': (lambda r: None, dict(ann_file='none.txt'), r'none.txt: no such file; expected one image per line'),
    'empty list': (
        lambda r: (r / 'l').write_text('\n'),
        dict(ann_file='l'),
        r'l is empty; expected one image per line',
    ),
    'unknown image': (
        lambda r: (r / 'l').write_text('2015_00001\nDog/2015_00002'),
        dict(ann_file='l'),
        r'l, line 2: 2015_00002 has no image in ',
    ),
    'twice in the list': (
        lambda r: (r / 'l').write_text('2015_00001\nBicycle/2015_00001.png'),
        dict(ann_file='l'),
        r'l, line 2: image 2015_00001 is listed twice',
    ),
    'list and subset have nothing in common': (
        lambda r: (r / 'l').write_text('2015_00001'),
        dict(ann_file='l', subset='test'),
        r'l contains no image of subset test',
    ),
    'subset': (lambda r: None, dict(subset='training'), r"subset must be 'train', 'val' or 'test', .* got 'training'"),
    'no subset': (lambda r: None, dict(subset=()), r"subset must be 'train', 'val' or 'test', .* got \(\)"),
}


@pytest.mark.parametrize(('damage', 'options', 'message'), DAMAGE.values(), ids=DAMAGE)
def test_broken_folder(root, damage, options, message):
    damage(root)
    with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
        ExDarkDataset(data_root=str(root), **options)
    assert '\n' not in str(error.value)


@needs_data
def test_real_images(tmp_path):
    """Eight real images in the official layout; none of their boxes is clipped."""
    codes = dict(line.split()[:2] for line in (DATA / LIST).read_text().splitlines()[1:])
    images = sorted((DATA / 'images').iterdir())
    for image in images:
        folder = ExDarkDataset.METAINFO['classes'][int(codes[image.name]) - 1]
        for target, source in (
            (tmp_path / 'ExDark' / folder / image.name, image),
            (tmp_path / 'ExDark_Annno' / folder / f'{image.name}.txt', DATA / f'annotations/{image.name}.txt'),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    (tmp_path / 'all.txt').write_text('\n'.join(image.name for image in images))
    dataset = ExDarkDataset('all.txt', data_root=str(tmp_path), class_list=str(DATA / LIST))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert len(infos) == 8
    assert sum(len(info['instances']) for info in infos) == 23
    for info in infos:
        label = tmp_path / 'ExDark_Annno' / Path(info['img_path']).relative_to(tmp_path / 'ExDark')
        boxes = [list(item.bbox) for item in parse_bbgt(f'{label}.txt')]
        assert [instance['bbox'] for instance in info['instances']] == boxes
    assert (infos[0]['img_id'], infos[0]['light'], infos[0]['place']) == ('2015_00003', 'Weak', 'Outdoor')


@needs_data
def test_all_official_labels(tmp_path):
    """Every label file of the release, with generated images; checks the sizes of the official subsets."""
    with zipfile.ZipFile(DATA / 'annotations_all.zip') as archive:
        archive.extractall(tmp_path)
    labels = tmp_path / 'annotations_all'
    objects = Counter()
    for path in labels.glob('*/*.txt'):
        objects.update(item.label for item in parse_bbgt(str(path)))
        image = tmp_path / 'ExDark' / path.relative_to(labels).with_suffix('')
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    assert sum(objects.values()) == 23710
    assert set(objects) == set(ExDarkDataset.METAINFO['classes'])
    assert objects['People'] == 7460

    class Headless(ExDarkDataset):
        def _load_image(self, image_id, path, label_path):
            return dict(img_id=image_id)

    prefix = dict(label_path='annotations_all')
    sizes = {
        subset: len(Headless(data_root=str(tmp_path), data_prefix=prefix, class_list=str(DATA / LIST), subset=subset))
        for subset in ('train', 'val', 'test', None)
    }
    assert sizes == {'train': 3000, 'val': 1800, 'test': 2563, None: 7363}
