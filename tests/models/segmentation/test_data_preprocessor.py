"""The scene module sees RGB in [0, 1], and everything else stays exactly what mmseg does."""

import copy

import pytest
import torch

pytest.importorskip('mmseg.models')

from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from ruas_mm import RUASSegDataPreprocessor
from ruas_mm.modules import SceneOutput

NORMALISED = dict(mean=[1, 2, 3], std=[4, 5, 6])
ORDERS = [{}, {'bgr_to_rgb': True}, {'rgb_to_bgr': True}]
EXACT = dict(rtol=0, atol=0)


class Scene(torch.nn.Module):
    """A scene module that remembers what it was shown."""

    def __init__(self, feature=lambda y: y):
        super().__init__()
        self.feature, self.seen = feature, []

    def forward(self, y):
        self.seen.append(y)
        return SceneOutput([self.feature(y)], [torch.ones_like(y)])


def build(scene=None, **options):
    preprocessor = RUASSegDataPreprocessor(scene_module={}, **options)
    if scene is not None:
        preprocessor.scene_module = scene
    return preprocessor


def make_batch(sizes, seed=0):
    """A batch as mmseg's data loaders give it."""
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for size in sizes:
        images.append(torch.randint(256, (3, *size), generator=generator).to(torch.uint8))
        sample = SegDataSample(metainfo={'img_shape': size, 'ori_shape': size})
        sample.gt_sem_seg = PixelData(data=torch.randint(19, (1, *size), generator=generator))
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


def assert_same(ours, theirs, **tolerance):
    torch.testing.assert_close(ours['inputs'], theirs['inputs'], **tolerance)
    for mine, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
        assert mine.metainfo == other.metainfo
        assert torch.equal(mine.gt_sem_seg.data, other.gt_sem_seg.data)


@pytest.mark.parametrize('order', ORDERS)
def test_scene_module_sees_rgb_in_0_1(order):
    colour = torch.tensor([51, 102, 255]).view(3, 1, 1)  # red, green, blue
    image = (colour if 'rgb_to_bgr' in order else colour.flip(0)).expand(3, 4, 5).to(torch.uint8)
    spy = Scene()
    build(spy, **NORMALISED, **order)({'inputs': [image, image]})
    (seen,) = spy.seen
    torch.testing.assert_close(seen, (colour / 255).expand(2, 3, 4, 5))


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('padding', [{'size': (40, 40)}, {'size_divisor': 32}])
def test_training_is_mmsegs(order, padding):
    """Normalisation and padding of images and labels."""
    options = {**NORMALISED, **order, **padding}
    sizes = [(20, 33), (32, 32), (7, 5)] if 'size' in padding else [(20, 33)]
    batch = make_batch(sizes)
    theirs = SegDataPreProcessor(**options)(copy.deepcopy(batch), True)
    assert_same(build(Scene(), **options)(copy.deepcopy(batch), True), theirs, rtol=0, atol=1e-4)
    assert_same(RUASSegDataPreprocessor(**options)(copy.deepcopy(batch), True), theirs, **EXACT)


@pytest.mark.parametrize('test_cfg', [None, {'size_divisor': 32}])
def test_testing_is_mmsegs(test_cfg):
    options = {**NORMALISED, 'bgr_to_rgb': True, 'test_cfg': test_cfg}
    batch = make_batch([(20, 33)] * 2)
    theirs = SegDataPreProcessor(**options)(copy.deepcopy(batch))
    assert_same(build(Scene(), **options)(copy.deepcopy(batch)), theirs, rtol=0, atol=1e-4)


def test_scene_travels_with_its_image():
    """At the image's own size, whatever the host pads it to."""
    sizes = [(20, 33), (7, 5), (20, 33)]
    batch = make_batch(sizes)
    data = build(size=(40, 40), bgr_to_rgb=True)(copy.deepcopy(batch), True)
    for image, sample, size in zip(batch['inputs'], data['data_samples'], sizes, strict=True):
        assert sample.scene.shape == size
        torch.testing.assert_close(sample.scene.observation, image.flip(0) / 255)
        y, u, t = sample.scene.observation, sample.scene.feature, sample.scene.illumination
        torch.testing.assert_close(u, (y / t).clamp(0, 1))


def test_host_gets_the_feature():
    data = build(Scene(lambda y: 0.5 * y), bgr_to_rgb=True)({'inputs': [torch.full((3, 4, 4), 100, dtype=torch.uint8)]})
    torch.testing.assert_close(data['inputs'], torch.full((1, 3, 4, 4), 50.0))


def test_disabled():
    options = {**NORMALISED, 'bgr_to_rgb': True, 'size_divisor': 4}
    batch = make_batch([(8, 9)])
    data = build(enabled=False, **options)(copy.deepcopy(batch), True)
    assert_same(data, SegDataPreProcessor(**options)(copy.deepcopy(batch), True), **EXACT)
    assert 'scene' not in data['data_samples'][0]
