"""The scene module sees RGB in [0, 1], and everything else stays exactly what mmdet does."""

import copy

import pytest
import torch

pytest.importorskip('mmdet.models')

from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ruas_mm import RUASDetDataPreprocessor
from ruas_mm.modules import SceneOutput

SIZES = [(20, 33), (32, 32), (7, 5), (20, 33)]
ORDERS = [{}, {'bgr_to_rgb': True}, {'rgb_to_bgr': True}]


class Scene(torch.nn.Module):
    """A scene module that changes nothing and remembers what it was shown."""

    def __init__(self, feature=lambda y: y):
        super().__init__()
        self.feature, self.seen = feature, []

    def forward(self, y):
        self.seen.append(y)
        return SceneOutput([self.feature(y)], [torch.ones_like(y)])


def build(scene=None, **options):
    """A preprocessor whose scene module is the given one, or the real one."""
    preprocessor = RUASDetDataPreprocessor(scene_module={}, **options)
    if scene is not None:
        preprocessor.scene_module = scene
    return preprocessor


def make_batch(sizes=SIZES, stacked=False, dtype=torch.uint8, high=256, seed=0):
    """A batch as mmdet's data loaders give it."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(high, (3, *size), generator=generator).to(dtype) for size in sizes]
    samples = []
    for height, width in sizes:
        boxes = torch.tensor([[1.0, 1.0, width - 1.0, height - 1.0]])
        sample = DetDataSample(metainfo={'img_shape': (height, width), 'ori_shape': (height, width)})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(1, dtype=torch.long))
        samples.append(sample)
    return {'inputs': torch.stack(images) if stacked else images, 'data_samples': samples}


def assert_same(ours, theirs, **tolerance):
    """Compare two processed batches: images, meta information and labels."""
    assert ours.keys() == theirs.keys()
    assert ours['inputs'].dtype == theirs['inputs'].dtype
    torch.testing.assert_close(ours['inputs'], theirs['inputs'], **tolerance)
    for mine, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
        assert mine.metainfo == other.metainfo
        assert mine.gt_instances.keys() == other.gt_instances.keys()
        assert torch.equal(mine.gt_instances.bboxes, other.gt_instances.bboxes)


EXACT = {'rtol': 0, 'atol': 0}


@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('order', ORDERS)
def test_scene_module_sees_rgb_in_0_1(order, stacked):
    """Rivals put it after the normalisation, where a dark image is one constant."""
    colour = torch.tensor([51, 102, 255]).view(3, 1, 1)  # red, green, blue
    image = colour if 'rgb_to_bgr' in order else colour.flip(0)  # as such a host's pipeline loads it
    images = [image.expand(3, 4, 5).to(torch.uint8)] * 2
    spy = Scene()
    preprocessor = build(spy, mean=[1, 2, 3], std=[4, 5, 6], pad_size_divisor=8, **order)
    preprocessor({'inputs': torch.stack(images) if stacked else images, 'data_samples': None})
    (seen,) = spy.seen
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, (colour / 255).expand(2, 3, 4, 5))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('padding', [{}, {'pad_size_divisor': 32}, {'pad_size_divisor': 16, 'pad_value': 114}])
@pytest.mark.parametrize('scale', [{}, {'mean': [123.7, 116.3, 103.5], 'std': [58.4, 57.1, 57.4]}])
@pytest.mark.parametrize('order', ORDERS)
def test_identity_scene_is_the_host(order, scale, padding, stacked, training):
    options = {**order, **scale, **padding}
    batch = make_batch([(20, 33)] * 2 if stacked else SIZES, stacked)
    theirs = DetDataPreprocessor(**options)(copy.deepcopy(batch), training)
    ours = build(Scene(), **options)(copy.deepcopy(batch), training)
    assert_same(ours, theirs, rtol=0, atol=1e-4)


def test_identity_scene_with_batch_augments():
    """Batch augments of the host come after the scene module and see what they would see without it."""
    options = {'batch_augments': [dict(type='mmdet.BatchFixedSizePad', size=(48, 64))], 'pad_size_divisor': 16}
    batch = make_batch()
    theirs = DetDataPreprocessor(**options)(copy.deepcopy(batch), True)
    ours = build(Scene(), **options)(copy.deepcopy(batch), True)
    assert ours['inputs'].shape == (4, 3, 48, 64)
    assert_same(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize('options', [{'scene_module': None}, {}, {'scene_module': {}, 'enabled': False}])
@pytest.mark.parametrize('stacked', [False, True])
def test_without_scene_it_is_the_host(options, stacked):
    host = {'mean': [1, 2, 3], 'std': [4, 5, 6], 'bgr_to_rgb': True, 'pad_size_divisor': 32, 'pad_value': 7}
    batch = make_batch([(20, 33)] * 2 if stacked else SIZES, stacked)
    ours = RUASDetDataPreprocessor(**options, **host)(copy.deepcopy(batch))
    assert_same(ours, DetDataPreprocessor(**host)(copy.deepcopy(batch)), **EXACT)
    assert all('scene' not in sample for sample in ours['data_samples'])


def test_an_empty_config_is_the_default_scene_module():
    """``scene_module=dict()`` asks for a scene module with its defaults, not for none."""
    preprocessor = RUASDetDataPreprocessor(scene_module={})
    assert isinstance(preprocessor.scene_module, torch.nn.Module)
    assert 'scene' in preprocessor(make_batch())['data_samples'][0]


@pytest.mark.parametrize('order', ORDERS)
def test_scene_travels_with_its_sample(seeded, order):
    """It has the image's own size, RGB order, and fulfils u = clamp(y / t)."""
    preprocessor = build(pad_size_divisor=32, **order)
    batch = make_batch(high=90)
    for image, sample in zip(batch['inputs'], preprocessor(batch)['data_samples'], strict=True):
        scene = sample.scene
        assert scene.shape == image.shape[-2:]
        rgb = image if 'rgb_to_bgr' in order else image.flip(0)
        torch.testing.assert_close(scene.observation, rgb / 255)
        torch.testing.assert_close(scene.feature, (scene.observation / scene.illumination).clamp(0, 1))
        assert set(scene.keys()) == {'observation', 'feature', 'illumination'}


def test_batch_given_is_left_alone():
    """Data loaders and search hooks may use a batch again."""
    batch = make_batch()
    before = copy.deepcopy(batch)
    build()(batch)
    assert all(map(torch.equal, batch['inputs'], before['inputs']))
    assert all('scene' not in sample for sample in batch['data_samples'])


def test_an_image_is_the_same_alone_and_in_a_batch(seeded):
    preprocessor = build(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True, pad_size_divisor=32).eval()
    batch = make_batch(high=90)
    with torch.no_grad():
        together = preprocessor(batch)
        for index, (height, width) in enumerate(SIZES):
            one = {key: values[index : index + 1] for key, values in batch.items()}
            alone = preprocessor(one)
            mine, other = together['data_samples'][index].scene, alone['data_samples'][0].scene
            torch.testing.assert_close(mine.feature, other.feature)
            torch.testing.assert_close(mine.illumination, other.illumination)
            image = together['inputs'][index, :, :height, :width]
            torch.testing.assert_close(image, alone['inputs'][0, :, :height, :width])


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1)])
def test_any_size(size):
    batch = build(pad_size_divisor=32)(make_batch([size, (5, 4)]))
    assert batch['inputs'].shape == (2, 3, 32, 32)
    assert batch['data_samples'][0].scene.feature.shape == (3, *size)
    assert batch['inputs'].isfinite().all()


@pytest.mark.parametrize('training', [False, True])
def test_brightness_gate(seeded, training):
    """Over-exposure is kept in check: bright images pass, dark ones are treated as without a gate."""
    options = {'mean': [1, 2, 3], 'std': [4, 5, 6], 'bgr_to_rgb': True, 'pad_size_divisor': 32}
    gated = build(brightness_gate=0.5, **options)
    free = build(**options)
    free.load_state_dict(gated.state_dict())
    host = DetDataPreprocessor(**options)
    dark, bright = make_batch(high=40), make_batch(seed=1)
    bright['inputs'] = [200 + image // 8 for image in bright['inputs']]
    mixed = {key: [dark[key][0], bright[key][1], bright[key][2], dark[key][3]] for key in dark}
    with torch.no_grad():
        assert_same(gated(dark, training), free(dark, training), rtol=1e-6, atol=1e-4)
        assert_same(gated(bright, training), host(bright, training), rtol=0, atol=1e-4)
        ours = gated(mixed, training)
        enhanced, plain = free(mixed, training), host(mixed, training)
    for index, sample in enumerate(ours['data_samples']):
        scene, reference = sample.scene, enhanced['data_samples'][index].scene
        if index in (0, 3):
            torch.testing.assert_close(scene.feature, reference.feature)
            torch.testing.assert_close(scene.illumination, reference.illumination)
            torch.testing.assert_close(ours['inputs'][index], enhanced['inputs'][index], rtol=1e-6, atol=1e-4)
        else:
            assert torch.equal(scene.feature, scene.observation)
            assert (scene.illumination == 1).all()
            torch.testing.assert_close(ours['inputs'][index], plain['inputs'][index], rtol=0, atol=1e-4)


def test_brightness_is_luminance():
    """Blue light of the same pixel value is darker than green light: BT.601 luma decides, not the mean."""
    images = []
    for channel in range(3):
        image = torch.zeros(3, 4, 4)
        image[channel] = 255
        images.append(image)
    preprocessor = build(Scene(lambda y: y / 2), brightness_gate=0.4)  # BGR in: blue 0.114, green 0.587, red 0.299
    features = [
        s.scene.feature.max() for s in preprocessor({**make_batch([(4, 4)] * 3), 'inputs': images})['data_samples']
    ]
    assert features == [0.5, 1, 0.5]


@pytest.mark.parametrize('training', [False, True])
def test_resolution(seeded, training):
    """The scene module's option; the maps that travel have the size of the image."""
    preprocessor = build(brightness_gate=0.05)
    preprocessor.scene_module.resolution = 0.25
    other = RUASDetDataPreprocessor(scene_module=dict(resolution=0.25), brightness_gate=0.05)
    other.load_state_dict(preprocessor.state_dict())
    batch = make_batch(high=20)
    ours, theirs = preprocessor(batch, training), other(copy.deepcopy(batch), training)
    for sample, twin, image in zip(ours['data_samples'], theirs['data_samples'], batch['inputs'], strict=True):
        y, t = sample.scene.observation, sample.scene.illumination
        assert t.shape == y.shape == image.shape
        assert t.max() < 1, 'a test of nothing'
        torch.testing.assert_close(sample.scene.feature, (y / t).clamp(0, 1))
        assert torch.equal(twin.scene.illumination, t)


@pytest.mark.parametrize('gate', [None, 0.05])
def test_weights_stay_in_the_graph(seeded, gate):
    """DDP waits for every weight's gradient, also where the gate lets all images of the batch pass."""
    preprocessor = build(brightness_gate=gate)
    preprocessor(make_batch(), True)['inputs'].sum().backward()
    grads = [parameter.grad for parameter in preprocessor.parameters() if parameter.requires_grad]
    assert grads and all(grad is not None and grad.isfinite().all() for grad in grads)
    if gate is not None:
        assert not any(grad.any() for grad in grads)


def test_the_task_trains_the_scene_module(seeded):
    """The gradient of what the detector gets reaches the scene module's weights through normalisation and padding."""
    preprocessor = build(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True, pad_size_divisor=32)
    preprocessor(make_batch(high=60), True)['inputs'].square().mean().backward()
    grads = [parameter.grad for parameter in preprocessor.scene_module.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert sum(bool(grad.any()) for grad in grads) > len(grads) / 2


def test_state_dict_round_trip(seeded):
    first, second = build(), build()
    batch = make_batch(high=60)
    with torch.no_grad():
        assert not torch.equal(first(batch)['inputs'], second(batch)['inputs'])
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(batch)['inputs'], second(batch)['inputs'])
        second.enabled = False  # a switch for comparisons: the weights stay
        assert second.state_dict().keys() == first.state_dict().keys()


def test_autocast(seeded):
    """The division stays in float32, so that half precision moves the picture by little."""
    preprocessor = build()
    batch = make_batch(high=30)
    reference = preprocessor(batch, True)['data_samples'][0].scene
    with torch.autocast('cpu', torch.bfloat16):
        out = preprocessor(batch, True)
    scene = out['data_samples'][0].scene
    assert out['inputs'].dtype == scene.illumination.dtype == scene.feature.dtype == torch.float32
    assert out['inputs'].isfinite().all()
    torch.testing.assert_close(scene.feature, reference.feature, rtol=0, atol=0.05)
    out['inputs'].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in preprocessor.parameters())


@pytest.mark.parametrize('stacked', [False, True])
def test_images_without_samples(stacked):
    images = make_batch([(8, 8)] * 2, stacked)['inputs']
    out = build(pad_size_divisor=16)({'inputs': images, 'data_samples': None})
    assert out['data_samples'] is None
    assert out['inputs'].shape == (2, 3, 16, 16)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_integer_and_float_images_are_alike(seeded, dtype):
    preprocessor = build(bgr_to_rgb=True)
    with torch.no_grad():
        out = preprocessor(make_batch(dtype=dtype))['inputs']
        torch.testing.assert_close(out, preprocessor(make_batch())['inputs'], **EXACT)


def test_scene_module_by_name():
    """Any registered module may take the scene module's place; an unknown option is named."""
    with pytest.raises(ValueError, match='warm_start'):
        RUASDetDataPreprocessor(scene_module=dict(warm_start='cold'))
    genotype = {f'scene.{name}': 'skip' for name in ('distill_1', 'remain_1', 'distill_2', 'remain_2', 'distill_3')}
    with pytest.raises(ValueError, match=r'scene\.remain_3'):
        RUASDetDataPreprocessor(scene_module=dict(genotype=genotype))
