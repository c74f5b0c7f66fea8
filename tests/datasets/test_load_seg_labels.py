import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

pytest.importorskip('mmseg.datasets', reason='mmseg or mmcv is missing', exc_type=ImportError)

from mmseg.datasets.transforms import LoadAnnotations

from ruas_mm.datasets.segmentation import LoadSegLabels
from ruas_mm.registry import DATASETS, TRANSFORMS

MAP = np.array([[0, 1, 2], [3, 18, 255]], dtype=np.uint8)


def sample(path, **more):
    return dict(seg_map_path=str(path), label_map=None, reduce_zero_label=False, seg_fields=[], **more)


@pytest.fixture
def save(tmp_path):
    def save(picture, name='map.png'):
        picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        picture.save(tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(num_classes=19),
        dict(num_classes=19, ori_shape=(2, 3), img_shape=(20, 30)),
        dict(num_classes=19, ori_shape=(2, 3, 3)),
        dict(num_classes=2, label_map={3: 0, 18: 1, 0: 255, 1: 255, 2: 255}),
        dict(num_classes=18, reduce_zero_label=True),
    ],
)
def test_loads_what_mmseg_loads(save, options):
    path = save(MAP)
    expected = LoadAnnotations()({**sample(path), **options})
    found = TRANSFORMS.build(dict(type='ruas_mm.LoadSegLabels'))({**sample(path), **options})
    np.testing.assert_array_equal(found.pop('gt_seg_map'), expected.pop('gt_seg_map'))
    assert found == expected
    assert found['seg_fields'] == ['gt_seg_map']


def test_map_with_a_palette_keeps_its_ids(save):
    picture = Image.fromarray(MAP)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    found = LoadSegLabels()(sample(save(picture), num_classes=19, ori_shape=(2, 3)))
    np.testing.assert_array_equal(found['gt_seg_map'], MAP)


def test_two_values_of_one_bit(save):
    found = LoadSegLabels()(sample(save(Image.fromarray(MAP[:, :2] > 0)), num_classes=2))
    assert found['gt_seg_map'].tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ('picture', 'options', 'message'),
    [
        (MAP, dict(ori_shape=(3, 2)), r'map.png: the size must be 2×3 as that of the image, got 3×2\.'),
        (MAP, dict(ori_shape=(4, 6), img_shape=(2, 3)), r'the size must be 6×4 as that of the image, got 3×2'),
        (MAP, dict(num_classes=18), r'map.png: ids must be from 0 to 17, or 255 to be ignored, got 18\.'),
        (MAP, dict(num_classes=2), r'map.png: ids must be from 0 to 1, or 255 to be ignored, got 2, 3, 18\.'),
        (MAP, dict(num_classes=11, label_map={11: 255}), r'from 0 to 11, or 255 to be ignored, got 18\.'),
        (MAP, dict(num_classes=1, label_map={0: 255, 1: 255, 2: 0}), r'from 0 to 2, or 255 to be ignored, got 3, 18'),
        (MAP, dict(num_classes=17, reduce_zero_label=True), r'from 0 to 17, or 255 to be ignored, got 18\.'),
        (np.zeros((2, 3, 3), np.uint8), dict(), r'map.png: a label map must have one 8-bit channel .*, got mode RGB;'),
        (np.zeros((2, 3, 4), np.uint8), dict(), r'map.png: a label map must have one 8-bit channel .*, got mode RGBA;'),
        (
            np.full((2, 3), 256, np.uint16),
            dict(),
            r'map.png: a label map must have one 8-bit channel .*, got mode I;16;',
        ),
    ],
)
def test_what_is_no_label_map_of_its_image(save, picture, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        LoadSegLabels()({**sample(save(picture)), **options})
    assert '\n' not in str(caught.value)


def test_files_that_cannot_be_read(save, tmp_path):
    load = LoadSegLabels()
    with pytest.raises(FileNotFoundError, match=r'none.png: no such file; expected a label map'):
        load(sample(tmp_path / 'none.png'))
    path = tmp_path / 'text.png'
    for content in (b'', b'no image'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'text.png: expected a label map, but it cannot be read'):
            load(sample(path))
    noise = save(np.random.default_rng(0).integers(0, 19, (64, 64), dtype=np.uint8))
    noise.write_bytes(noise.read_bytes()[:500])
    with pytest.raises(ValueError, match=r'map.png: expected a label map, but it cannot be read'):
        load(sample(noise))
    with pytest.raises(ValueError, match=r'a.png has no label map'):
        load(dict(img_path='a.png', sample_idx=0))


def test_only_an_image_of_no_data_set_passes_without_labels(tmp_path):
    image = dict(img_path='a.png', img_shape=(2, 3))
    assert LoadSegLabels()(dict(image)) == image
    (tmp_path / 'images').mkdir()
    Image.fromarray(MAP).convert('RGB').save(tmp_path / 'images' / 'a.png')
    dataset = DATASETS.build(
        dict(
            type='mmseg.BaseSegDataset',
            img_suffix='.png',
            metainfo=dict(classes=('road',)),
            data_prefix=dict(img_path=str(tmp_path / 'images')),
            pipeline=[dict(type='ruas_mm.LoadSegLabels')],
        )
    )
    with pytest.raises(ValueError, match=r'a.png has no label map'):
        dataset[0]


def test_number_of_classes_for_data_sets_that_do_not_tell(save):
    path = save(MAP)
    assert LoadSegLabels(num_classes=19)(sample(path))['gt_seg_map'].shape == (2, 3)
    with pytest.raises(ValueError, match='from 0 to 17, .* got 18'):
        LoadSegLabels(num_classes=18)(sample(path))


LAYOUTS = {
    'mmseg.DarkZurichDataset': (
        dict(img_path='rgb_anon/val/night', seg_map_path='gt/val/night'),
        'rgb_anon/val/night/GOPR0356/GOPR0356_frame_000321_rgb_anon.png',
        'gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_labelTrainIds.png',
    ),
    'mmseg.NightDrivingDataset': (
        dict(img_path='leftImg8bit/test/night', seg_map_path='gtCoarse_daytime_trainvaltest/test/night'),
        'leftImg8bit/test/night/0_0_leftImg8bit.png',
        'gtCoarse_daytime_trainvaltest/test/night/0_0_gtCoarse_labelTrainIds.png',
    ),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_mmseg_s_own_night_data_sets(tmp_path, name):
    prefix, image, labels = LAYOUTS[name]
    for path, picture in ((image, np.zeros((2, 3, 3), np.uint8)), (labels, MAP)):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / path)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.Resize', scale=(6, 4)),
        dict(type='ruas_mm.LoadSegLabels', num_classes=19),
        dict(type='mmseg.PackSegInputs'),
    ]
    config = dict(type=name, data_root=str(tmp_path), data_prefix=prefix, pipeline=pipeline, test_mode=True)
    with DefaultScope.overwrite_default_scope('ruas_mm'):
        dataset = DATASETS.build(config)
        assert len(dataset) == 1
        data = dataset[0]
        assert data['inputs'].shape == (3, 4, 6)
        np.testing.assert_array_equal(data['data_samples'].gt_sem_seg.data[0], MAP)
        Image.new('L', (4, 2)).save(tmp_path / labels)
        with pytest.raises(ValueError, match=r'labelTrainIds.png: the size must be 3×2 as that of the image, got 4×2'):
            dataset[0]
