import numpy as np
import pytest

from ruas_mm.datasets.transforms import LowLightSynthesis, darken
from ruas_mm.datasets.transforms.low_light_synthesis import linear_to_srgb, srgb_to_linear

NOISELESS = dict(shot_noise=(1e-30, 1e-30), read_noise=(0, 0))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def rng():
    return np.random.default_rng(7)


def test_srgb_transfer():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    assert np.allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-5)
    assert srgb_to_linear(np.array([0.5]))[0] == pytest.approx(0.21404, abs=1e-5)  # IEC 61966-2-1


def test_darkens_by_the_illumination_in_linear_light(image):
    image = image / 255
    dark, illumination = darken(image, rng(), **NOISELESS)
    assert dark.shape == image.shape and dark.dtype == np.float32
    assert illumination.shape == image.shape[:2] and 0 < illumination.min() <= illumination.max() <= 1
    assert np.allclose(srgb_to_linear(dark), srgb_to_linear(image) * illumination[..., None], atol=1e-5)


def test_never_brightens(image):
    image = image / 255
    dark, illumination = darken(image, rng(), exposure=(1, 1), lamps=(3, 3), **NOISELESS)
    assert illumination.max() == 1
    assert (dark <= image + 1e-5).all()


def test_illumination_without_lamps_is_a_ramp():
    _, flat = darken(np.ones((30, 40)), rng(), exposure=(0.1, 0.1), falloff=(0, 0), lamps=(0, 0))
    assert np.allclose(flat, 0.1)
    _, ramp = darken(np.ones((30, 40)), rng(), exposure=(0.1, 0.1), falloff=(0.5, 0.5), lamps=(0, 0))
    assert 0.05 - 1e-6 <= ramp.min() < ramp.max() <= 0.1 + 1e-6
    assert np.abs(np.diff(ramp, 2, axis=0)).max() < 1e-6


def test_illumination_is_smooth_and_independent_of_resolution():
    _, small = darken(np.ones((60, 80)), rng())
    _, large = darken(np.ones((120, 160)), rng())
    assert np.abs(large[::2, ::2] - small).max() < 0.05 * small.max()
    assert np.abs(np.diff(large, axis=0)).max() < 0.15 * large.max()


@pytest.mark.parametrize('value', [0.2, 0.8])
def test_noise_has_the_stated_variance(value):
    flat = dict(exposure=(0.5, 0.5), falloff=(0, 0), lamps=(0, 0), shot_noise=(1e-3, 1e-3), read_noise=(2e-3, 2e-3))
    dark, _ = darken(np.full((300, 300), linear_to_srgb(value)), rng(), **flat)
    light = srgb_to_linear(dark)
    assert light.mean() == pytest.approx(value / 2, rel=1e-2)
    assert light.var() == pytest.approx(1e-3 * value / 2 + 4e-6, rel=3e-2)


@pytest.mark.parametrize('shape', [(1, 1), (1, 1, 3), (1, 7, 3), (5, 1, 1)])
def test_any_size(shape):
    dark, illumination = darken(np.full(shape, 0.5), rng())
    assert dark.shape == shape and illumination.shape == shape[:2]
    assert np.isfinite(dark).all() and dark.min() >= 0 and dark.max() <= 1


def test_values_slightly_out_of_range_give_no_nan():
    dark, _ = darken(np.array([[-1e-3, 1.001]]), rng())
    assert np.isfinite(dark).all()


def test_transform_leaves_the_rest_alone(image):
    boxes = np.array([[1, 2, 30, 40]])
    results = dict(img=image.copy(), img_path='a/b.png', gt_bboxes=boxes, img_shape=(48, 64))
    dark = LowLightSynthesis(seed=0).transform(results)
    assert dark['img'].dtype == np.uint8 and dark['img'].shape == image.shape
    assert dark['img'].mean() < 0.5 * image.mean()
    assert dark['illumination'].shape == (48, 64)
    assert dark['gt_bboxes'] is boxes and dark['img_shape'] == (48, 64)


def run(image, path='a/1.png', **kwargs):
    return LowLightSynthesis(**kwargs).transform(dict(img=image.copy(), img_path=path))['img']


def test_seed_and_image_decide(image):
    first = run(image, seed=3)
    np.random.seed(99)  # the global generator must not matter
    assert (run(image, seed=3) == first).all()
    assert (run(image, 'moved/elsewhere/1.png', seed=3) == first).all()
    assert (run(image, 'a/2.png', seed=3) != first).any()
    assert (run(image, seed=4) != first).any()


def test_an_image_without_a_path_is_known_by_its_content(image):
    first = run(image, None, seed=3)
    assert (run(image, None, seed=3) == first).all()
    illuminations = [
        LowLightSynthesis(seed=3).transform(dict(img=img.copy()))['illumination'] for img in (image, 255 - image)
    ]
    assert (illuminations[0] != illuminations[1]).any()


def test_without_a_seed_numpys_global_generator_decides(image):
    np.random.seed(5)
    first, second = run(image), run(image)
    assert (first != second).any()
    np.random.seed(5)
    assert (run(image) == first).all()


@pytest.mark.parametrize(
    'arguments',
    [
        dict(exposure=(0, 0.1)),
        dict(exposure=(0.1, 2)),
        dict(exposure=0.1),
        dict(falloff=(0, 1)),
        dict(lamps=(3, 1)),
        dict(lamps=(0, 1.5)),
        dict(lamp_radius=(0, 1)),
        dict(shot_noise=(0, 1)),
        dict(read_noise=('a', 'b')),
        dict(seed=-1),
    ],
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LowLightSynthesis(**arguments)


def test_float_images_are_refused():
    with pytest.raises(TypeError, match='uint8'):
        LowLightSynthesis().transform(dict(img=np.zeros((4, 4, 3), np.float32)))


def test_in_a_pipeline(image):
    pytest.importorskip('mmcv')
    from ruas_mm.registry import TRANSFORMS

    transform = TRANSFORMS.build(dict(type='ruas_mm.LowLightSynthesis', seed=3, exposure=[0.01, 0.02]))
    assert (
        transform(dict(img=image.copy(), img_path='1.png'))['img'] == run(image, seed=3, exposure=(0.01, 0.02))
    ).all()
    assert 'exposure=(0.01, 0.02)' in repr(transform)
