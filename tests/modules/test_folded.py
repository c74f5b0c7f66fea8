import copy
import itertools

import pytest
import torch
from torch import nn

from ruas_mm.models.enhance import RUAS
from ruas_mm.modules import NoiseEstimator, NoiseRemoval, SceneModule, cell_slots, fold, folded
from ruas_mm.search import SCENE_SPACE

NAMES = [slot.removeprefix('scene.') for slot in cell_slots('scene').names]
GENOTYPES = {
    'skips': ['skip'] * 7,
    'every_candidate': list(SCENE_SPACE),
    'reversed': list(reversed(SCENE_SPACE)),
    'one_by_one': ['conv_1x1', 'res_conv_1x1', 'skip', 'conv_1x1', 'res_conv_1x1', 'skip', 'skip'],
    'dilated': ['dil_conv_3x3_d2', 'res_dil_conv_3x3_d2'] * 3 + ['dil_conv_3x3_d2'],
    'mixtures': ['conv_1x1', 'dil_conv_3x3_d2', 'conv_3x3', 'conv_1x1', 'res_dil_conv_3x3_d2', 'conv_3x3', 'skip'],
}
SIZES = [(1, 1), (1, 2), (2, 1), (1, 9), (8, 1), (3, 3), (5, 4), (6, 7), (9, 12)]


def genotype_of(prefix, operations):
    return {f'{prefix}.{name}': operation for name, operation in zip(NAMES, operations, strict=True)}


def with_weights(module, dtype=torch.float64):
    """Weights large enough that every operation matters and some values are clamped, and biases that are not 0."""
    torch.manual_seed(0)
    module = module.to(dtype).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    return module


def dark(*shape, dtype=torch.float64):
    return 0.4 * torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def maps_of(module, y):
    output = module(y)
    return [output] if isinstance(output, torch.Tensor) else [*output.features, *output.illuminations]


def assert_same(module, y, tolerance):
    before = y.clone()
    expected = maps_of(module, y)
    for packed in (True, False):
        ours = maps_of(fold(module, packed), y)
        assert len(ours) == len(expected)
        for a, b in zip(ours, expected, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
    assert torch.equal(y, before), 'what runs in place must not reach the input'


@pytest.fixture(params=[6, 16, 24])
def processor(request, monkeypatch):
    """How many pixels are packed depends on the processor."""
    monkeypatch.setattr(folded, '_CHANNELS', request.param)


@pytest.mark.parametrize('operations', GENOTYPES.values(), ids=GENOTYPES)
def test_genotypes_and_sizes(operations, processor):
    scene = with_weights(SceneModule(genotype=genotype_of('scene', operations)))
    noise = with_weights(NoiseRemoval(genotype_of('noise_removal', operations)))
    for size in SIZES:
        assert_same(scene, dark(2, 3, *size), 1e-12)
        assert_same(noise, dark(2, 3, *size), 1e-11)


@pytest.mark.parametrize('update', ['direct', 'gradient'])
@pytest.mark.parametrize('source', ['feature', 'illumination'])
@pytest.mark.parametrize('warm_start', ['rectified', 'updated', 'fixed', 'feature'])
def test_options_of_the_scene_module(warm_start, source, update):
    for window, stages in itertools.product((1, 2, 3, 5), (1, 3)):
        options = dict(warm_start=warm_start, source=source, update=update, window=window, stages=stages)
        assert_same(with_weights(SceneModule(t_min=0.1, gamma=0.3, **options)), dark(1, 3, 6, 7), 1e-12)


@pytest.mark.parametrize('resolution', [1 / 2, 1 / 3, 1 / 4])
def test_lower_resolutions(resolution, processor):
    for size in SIZES:
        assert_same(with_weights(SceneModule(resolution=resolution)), dark(2, 3, *size), 1e-12)


def test_channels():
    for channels in (1, 2, 5, 17):
        assert_same(with_weights(SceneModule(channels=channels)), dark(2, channels, 5, 6), 1e-12)
        assert_same(with_weights(NoiseRemoval(channels=channels, cells=2)), dark(1, 3, 5, 6), 1e-11)
        assert_same(with_weights(NoiseEstimator(channels)), dark(1, 3, 5, 6), 1e-11)


def test_float32():
    """New weights are those of a mild enhancer, as trained ones are."""
    torch.manual_seed(0)
    y = dark(1, 3, 61, 70, dtype=torch.float32)
    for module in (SceneModule(), SceneModule(genotype='ruas_darkface_vgg16', warm_start='feature'), NoiseRemoval()):
        assert_same(module.eval(), y, 1e-5)


def test_layouts_and_views():
    scene = with_weights(SceneModule())
    y = dark(2, 3, 10, 14)
    expected = maps_of(scene, y)
    part = torch.zeros(2, 3, 20, 30, dtype=y.dtype)[..., 5:15, 7:21]
    part.copy_(y)
    for same in (y.contiguous(memory_format=torch.channels_last), part):
        for a, b in zip(maps_of(fold(scene), same), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize('variant', ['S', 'full', 'A'])
def test_whole_enhancer(variant):
    model = with_weights(RUAS(variant))
    y = dark(3, 3, 9, 11)
    y[1] = 0.2  # smooth beside noisy images
    if variant == 'A':
        model.epsilon = model.enhance(y).noise_score.sort().values[:2].mean().item()
    expected, ours = model.enhance(y), fold(model).enhance(y)
    for a, b in zip(ours, expected, strict=True):
        assert a is b is None or torch.allclose(a, b, rtol=0, atol=1e-10)
    for a, b in zip(fold(model).predict(y), model.predict(y), strict=True):
        torch.testing.assert_close(a.enhanced, b.enhanced, rtol=0, atol=1e-10)


def test_any_module_that_contains_one():
    host = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(NoiseRemoval())).double()
    y = dark(1, 3, 8, 9)
    torch.testing.assert_close(fold(host)(y), host(y), rtol=0, atol=1e-12)
    assert type(fold(host)[0]) is nn.Conv2d, "the host's own layers are not touched"


def test_the_original_is_left_alone():
    model = with_weights(RUAS('A')).train()
    state = copy.deepcopy(model.state_dict())
    y = dark(1, 3, 6, 5)
    before = [value.clone() for value in maps_of(model.scene_module, y)]
    result = fold(model)
    assert not result.training and not any(p.requires_grad for p in result.parameters())
    assert model.training and all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for value in [*result.parameters(), *result.buffers()]:
            value.fill_(7)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(a, b) for a, b in zip(maps_of(model.scene_module, y), before, strict=True))


def test_does_not_follow_the_original():
    scene = with_weights(SceneModule())
    y = dark(1, 3, 6, 5)
    result = fold(scene)
    before = result(y).features[-1].clone()
    with torch.no_grad():
        scene.cells[-1].fuse.bias.add_(3)
    assert torch.equal(result(y).features[-1], before)
    assert not torch.allclose(fold(scene)(y).features[-1], before)


def test_subclasses_keep_their_own_forward():
    class Half(NoiseRemoval):
        def forward(self, u):
            return super().forward(u) / 2

    host = nn.Sequential(Half(), NoiseRemoval()).double()
    y = dark(1, 3, 5, 6)
    torch.testing.assert_close(fold(host)(y), host(y), rtol=0, atol=1e-12)


def test_packing_fills_the_registers(monkeypatch):
    monkeypatch.setattr(folded, '_CHANNELS', 16)
    for outside, pixels in ((1, 4), (3, 4), (4, 4), (5, 2), (6, 2), (8, 2), (9, 1), (32, 1)):
        kernel = folded.Kernel(torch.rand(outside, 2, 3, 3), torch.rand(outside), 2)
        assert folded.PackedConv(kernel).pixels == pixels
        assert folded.PackedConv(kernel, packed=False).pixels == 1


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        (lambda: SceneModule(genotype=None), 'SceneModule is still searchable'),
        (lambda: NoiseRemoval(None), 'NoiseRemoval is still searchable'),
        (lambda: RUAS('full', genotype=None), 'SceneModule is still searchable'),
        (lambda: nn.Linear(2, 2), 'Linear holds no SceneModule'),
    ],
)
def test_refuses(module, name):
    with pytest.raises(ValueError, match=name):
        fold(module())


@pytest.mark.cuda
def test_cuda():
    scene = with_weights(SceneModule()).cuda()
    assert_same(scene, dark(2, 3, 13, 14).cuda(), 1e-11)
