import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ruas_mm.modules import SceneModule
from ruas_mm.modules.resampling import enlarge, shrink
from ruas_mm.search import SCENE_SPACE, Genotype, MixedOp

CELL = ('distill_1', 'remain_1', 'distill_2', 'remain_2', 'distill_3', 'remain_3', 'last')
# METHOD §4: name -> (padding, dilation, residual); None is the identity.
OPERATIONS = {
    'skip': None,
    'conv_1x1': (0, 1, False),
    'conv_3x3': (1, 1, False),
    'res_conv_1x1': (0, 1, True),
    'res_conv_3x3': (1, 1, True),
    'dil_conv_3x3_d2': (2, 2, False),
    'res_dil_conv_3x3_d2': (2, 2, True),
}
MIXED = dict(zip((f'scene.{name}' for name in CELL), reversed(SCENE_SPACE), strict=True))  # every candidate once
WARM_STARTS = ('rectified', 'updated', 'fixed', 'feature')
CUDA = pytest.param('cuda', torch.float16, marks=pytest.mark.cuda)
AMP = pytest.mark.parametrize(('device', 'dtype'), [('cpu', torch.bfloat16), CUDA])


def reference_max(x, window):
    """METHOD §2: the block to the lower right for 2, centred otherwise; zeros beyond the border."""
    first, last = (0, 1) if window == 2 else (-(window // 2), window // 2)
    height, width = x.shape[-2:]
    result = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*x.shape):
        for a, b in itertools.product(range(i + first, i + last + 1), range(j + first, j + last + 1)):
            value = x[n, c, a, b] if 0 <= a < height and 0 <= b < width else 0
            result[n, c, i, j] = max(result[n, c, i, j], value)
    return result


def reference_cell(state, stage, operations, x):
    """METHOD §3 on the weights of a state dict."""

    def o(i, x):
        if OPERATIONS[operations[i - 1]] is None:
            return x
        padding, dilation, residual = OPERATIONS[operations[i - 1]]
        weight, bias = (state[f'cells.{stage}.operations.{i - 1}.{kind}'] for kind in ('weight', 'bias'))
        y = F.conv2d(x, weight, bias, padding=padding, dilation=dilation)
        return y + x if residual else y

    def act(x):
        return torch.where(x > 0, x, 0.05 * x)

    d1, r1 = act(o(1, x)), act(o(2, x) + x)
    d2, r2 = act(o(3, r1)), act(o(4, r1) + r1)
    d3, r3 = act(o(5, r2)), act(o(6, r2) + r2)
    d4 = act(o(7, r3))
    weight, bias = state[f'cells.{stage}.fuse.weight'], state[f'cells.{stage}.fuse.bias']
    return F.conv2d(torch.cat([d1, d2, d3, d4], 1), weight, bias)


def reference(
    state, y, operations, stages, gamma=0.5, t_min=1e-4, window=2, warm_start='rectified', source='feature',
    update='direct',
):  # fmt: skip
    """METHOD §2 in numpy; returns u^1 … u^K and t^1 … t^K."""
    y = y.numpy()
    us, ts = [], []
    for k in range(stages):
        if k == 0 or warm_start == 'fixed':
            guess = reference_max(y, window)
        elif warm_start == 'feature':
            guess = us[-1]
        else:
            guess = reference_max(us[-1] if source == 'feature' else ts[-1], window)
            if warm_start == 'rectified':
                guess = guess - gamma * (us[-1] - y)
        refined = reference_cell(state, k, operations, torch.from_numpy(guess)).numpy()
        t = np.clip(1 / (1 + np.exp(-refined)) if update == 'direct' else guess - refined, t_min, 1)
        us.append(np.clip(y / t, 0, 1))
        ts.append(t)
    return us, ts


def random_module(seed=0, scale=2.0, **options):
    """Return a float64 module whose weights are large enough that the stages differ and some values are clamped."""
    torch.manual_seed(seed)
    module = SceneModule(**options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


def dark(*shape, seed=0, dtype=torch.float64):
    return 0.4 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def operations_of(genotype):
    slots = Genotype.load(genotype).slots
    return [slots[f'scene.{name}'] for name in CELL]


def assert_equal_to_reference(module, y, genotype, stages, **options):
    us, ts = reference(module.state_dict(), y, operations_of(genotype), stages, **options)
    output = module(y)
    assert len(output.features) == len(output.illuminations) == stages
    for ours, expected in zip([*output.features, *output.illuminations], [*us, *ts], strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-11)
    return ts


@pytest.mark.parametrize('window', [1, 2, 3, 5])
@pytest.mark.parametrize('update', ['direct', 'gradient'])
@pytest.mark.parametrize('source', ['feature', 'illumination'])
@pytest.mark.parametrize('warm_start', WARM_STARTS)
def test_options_against_the_reference(warm_start, source, update, window):
    y = dark(1, 3, 4, 3)
    options = {'warm_start': warm_start, 'source': source, 'update': update, 'window': window}
    for stages, gamma, t_min in [(1, 0.5, 1e-4), (2, 1.0, 0.3), (3, 0.5, 1e-3), (3, 0.1, 0.3)]:
        more = {**options, 'gamma': gamma, 't_min': t_min}
        module = random_module(stages=stages, genotype=MIXED, **more)
        assert_equal_to_reference(module, y, MIXED, stages, **more)


def test_defaults_are_those_of_the_method():
    """K = 3, journal genotype, gamma 0.5, t_min 1e-4, the 2x2 window, rectified, from u, direct (METHOD §2)."""
    module = random_module()
    ts = assert_equal_to_reference(module, dark(2, 3, 5, 4), 'ruas_enhance_journal', 3)
    assert max(abs(ts[2] - ts[1]).max(), abs(ts[1] - ts[0]).max()) > 0.01, 'a test of nothing'
    with torch.no_grad():
        for cell in module.cells:
            cell.fuse.bias -= 20  # sigmoid(-20) = 2e-9: the smallest illumination shows
    t = module(dark(1, 3, 2, 2)).illuminations[-1]
    torch.testing.assert_close(t, torch.full_like(t, 1e-4), rtol=1e-12, atol=0)


@pytest.mark.parametrize('size', [(1, 1), (1, 2), (2, 1), (1, 9), (8, 1), (3, 3), (7, 2)])
def test_any_size(size):
    for window in (2, 5):
        module = random_module(window=window)
        assert_equal_to_reference(module, dark(2, 3, *size), 'ruas_enhance_journal', 3, window=window)


def test_number_of_parameters():
    """METHOD §5: 1161, a third a stage; RUAS_S's 0.001 M of Table V."""
    assert sum(p.numel() for p in SceneModule().parameters()) == 1161
    assert sum(p.numel() for p in SceneModule(genotype='ruas_enhance_conference').parameters()) == 1161
    assert [sum(p.numel() for p in SceneModule(stages=k).parameters()) for k in (1, 2, 5)] == [387, 774, 1935]


@pytest.mark.parametrize('update', ['direct', 'gradient'])
@pytest.mark.parametrize('warm_start', WARM_STARTS)
def test_ranges(warm_start, update):
    y = torch.rand(2, 3, 6, 5)
    y[0, :, :2] = 0
    y[1, :, :2] = 1
    for scale in (1, 30):
        module = random_module(scale=scale, warm_start=warm_start, update=update, t_min=0.01).float()
        for u, t in zip(*module(y), strict=True):
            assert u.shape == t.shape == y.shape
            assert u.min() >= 0 and u.max() <= 1
            assert t.min() >= 0.01 - 1e-8 and t.max() <= 1
            assert (u >= y - 1e-6).all(), 't <= 1 never darkens'
            assert (u[y == 0] == 0).all()
            torch.testing.assert_close(u, (y / t).clamp(max=1))


def test_black_and_white_images():
    for value in (0.0, 1.0):
        output = SceneModule()(torch.full((1, 3, 3, 3), value))
        assert all((u == value).all() for u in output.features)
        assert all(t.isfinite().all() for t in output.illuminations)


@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', 'ruas_darkface_vgg16', None])
@pytest.mark.parametrize('warm_start', WARM_STARTS)
def test_gradients_reach_every_weight(warm_start, genotype):
    """From the last stage alone, except where it starts anew from the image."""
    torch.manual_seed(0)
    module = SceneModule(genotype=genotype, warm_start=warm_start).double()
    output = module(dark(2, 3, 9, 8))
    loss = output.features[-1].square().sum()
    if warm_start == 'fixed':
        loss = sum(u.square().sum() for u in output.features)
    loss.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_fixed_stages_do_not_see_each_other():
    module = random_module(warm_start='fixed')
    module(dark(1, 3, 4, 4)).features[-1].sum().backward()
    assert all(p.grad is None or not p.grad.any() for cell in module.cells[:2] for p in cell.parameters())
    assert all(p.grad.any() for p in module.cells[2].parameters())


def test_gradient_against_finite_differences():
    module = random_module(scale=1.0, stages=2)
    y = dark(1, 3, 3, 4)
    weight = module.cells[0].operations[1].weight
    torch.autograd.gradcheck(lambda y, _: tuple(module(y).features), (y.requires_grad_(), weight))


@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', None])
def test_independent_of_batch_mates(genotype):
    module = random_module(genotype=genotype)
    y = torch.cat([dark(1, 3, 5, 6, seed=0), torch.ones(1, 3, 5, 6), torch.zeros(1, 3, 5, 6)]).double()
    together = module(y)
    for i in range(3):
        alone = module(y[i : i + 1])
        for ours, expected in zip(itertools.chain(*together), itertools.chain(*alone), strict=True):
            torch.testing.assert_close(ours[i : i + 1], expected, rtol=0, atol=1e-13)


def test_later_stages_do_not_change_earlier_ones():
    module = random_module()
    two = random_module(stages=2)
    two.load_state_dict({key: value for key, value in module.state_dict().items() if not key.startswith('cells.2')})
    y = dark(1, 3, 4, 6)
    three = module(y)
    for ours, expected in zip([*three.features[:2], *three.illuminations[:2]], itertools.chain(*two(y)), strict=True):
        assert torch.equal(ours, expected)


def very_dark(module, device='cpu', dtype=torch.float32):
    """Push every illumination to t_min, smaller than a half-precision number can be."""
    with torch.no_grad():
        for cell in module.cells:
            cell.fuse.weight.zero_()
            cell.fuse.bias.fill_(-60 if module.update == 'direct' else 60)
    levels = torch.arange(4, dtype=torch.float32, device=device) / 255  # 0, 1/255, …
    return levels.to(dtype).view(1, 1, 2, 2).expand(2, 3, 2, 2).clone()


@AMP
@pytest.mark.parametrize('update', ['direct', 'gradient'])
@pytest.mark.parametrize('warm_start', WARM_STARTS)
def test_amp_divides_in_float32(warm_start, update, device, dtype):
    """A dark pixel over t_min = 1e-8, which is 0 in float16, is neither infinite nor NaN; nor are its gradients."""
    module = SceneModule(warm_start=warm_start, update=update, t_min=1e-8).to(device)
    y = very_dark(module, device).requires_grad_()
    with torch.autocast(device, dtype):
        output = module(y)
        loss = sum(x.sum() for x in itertools.chain(*output))
    loss.backward()
    for u, t in zip(*output, strict=True):
        assert u.dtype == t.dtype == torch.float32
        torch.testing.assert_close(t, torch.full_like(t, 1e-8))
        assert torch.equal(u, (y > 0).float())
    for tensor in [y, *module.parameters()]:
        assert tensor.grad is None or tensor.grad.isfinite().all()


@AMP
def test_amp_is_close_to_float32(device, dtype):
    for genotype in ('ruas_enhance_journal', None):
        torch.manual_seed(0)
        module = SceneModule(genotype=genotype).to(device)
        y = dark(2, 3, 16, 12, dtype=torch.float32).to(device)
        expected = module(y)
        with torch.autocast(device, dtype):
            output = module(y)
        for u, t, v, s in zip(*output, *expected, strict=True):
            assert u.dtype == t.dtype == torch.float32
            torch.testing.assert_close(t, s, rtol=0, atol=0.01)
            torch.testing.assert_close(u, v, rtol=0, atol=0.02)
            # the division itself lost nothing
            torch.testing.assert_close(u, (y / t).clamp(0, 1), rtol=1e-6, atol=0)


@AMP
def test_amp_takes_half_images(device, dtype):
    module = SceneModule().to(device)
    with torch.autocast(device, dtype):
        output = module(dark(1, 3, 5, 4).to(device, dtype))
    assert all(x.isfinite().all() for x in itertools.chain(*output))


@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', None])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('warm_start', WARM_STARTS)
def test_half_precision_module(warm_start, dtype, genotype):
    for update in ('direct', 'gradient'):
        module = SceneModule(genotype=genotype, warm_start=warm_start, update=update, t_min=1e-8).to(dtype)
        for y in (dark(1, 3, 5, 4, dtype=dtype), very_dark(module, dtype=dtype)):
            for u, t in zip(*module(y), strict=True):
                assert u.isfinite().all() and t.isfinite().all()
                assert u.min() >= 0 and u.max() <= 1
                assert t.min() > 0 and t.max() <= 1


def test_float64_stays_float64():
    for warm_start, update in itertools.product(WARM_STARTS, ('direct', 'gradient')):
        output = random_module(warm_start=warm_start, update=update)(dark(1, 3, 3, 3))
        assert {x.dtype for x in itertools.chain(*output)} == {torch.float64}


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (9, 7)])
@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', MIXED, None], ids=['journal', 'mixed', 'searchable'])
def test_memory_layout_does_not_matter(genotype, size):
    """Training changes the layout on the CPU: same values with and without gradients, whatever comes in."""
    torch.manual_seed(0)
    module = SceneModule(genotype=genotype)
    y = dark(2, 3, *size, dtype=torch.float32)
    strided = y.repeat(1, 1, 2, 2)[..., ::2, : size[1]].copy_(y)
    with torch.no_grad():
        expected = module(y)
    for given in (y, y.contiguous(memory_format=torch.channels_last), strided):
        before = given.clone()
        with_grad = module(given)
        with torch.no_grad():
            without = module(given)
        for a, b, c in zip(*(itertools.chain(*output) for output in (with_grad, without, expected)), strict=True):
            torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(b, c, rtol=1e-4, atol=1e-6)
        assert torch.equal(given, before)


def test_float32_gradients_in_training_layout():
    """The gradients of the other layout, against float64 and without the module's own choice of layout."""
    module = random_module(scale=1.0)
    y = dark(2, 3, 7, 6)
    weights = {key: value.detach().requires_grad_() for key, value in module.state_dict().items()}
    t = F.max_pool2d(F.pad(y, (0, 1, 0, 1)), 2, stride=1)
    for k in range(3):
        refined = reference_cell(weights, k, operations_of('ruas_enhance_journal'), t)
        u = (y / refined.sigmoid().clamp(1e-4, 1)).clamp(0, 1)
        t = F.max_pool2d(F.pad(u, (0, 1, 0, 1)), 2, stride=1) - 0.5 * (u - y)
    expected = torch.autograd.grad(u.square().mean(), weights.values())
    single = copy.deepcopy(module).float()
    loss = single(y.float()).features[-1].square().mean()
    gradients = torch.autograd.grad(loss, list(dict(single.named_parameters()).values()))
    for (name, _), ours, theirs in zip(single.named_parameters(), gradients, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize('window', [1, 2, 3, 9])
def test_inference_takes_the_same_maximum(window):
    module = SceneModule(window=window)
    y = dark(2, 3, 13, 8)
    y[0, 1, 5, 3] = math.nan
    with torch.no_grad():
        fast = module._local_max(y)
    torch.testing.assert_close(fast, module._local_max(y), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'warm_start': 'paper'}, "warm_start='paper'.*rectified, updated, fixed, feature"),
        ({'source': 'u'}, "source='u'.*feature, illumination"),
        ({'update': 'prox'}, "update='prox'.*direct, gradient"),
        ({'stages': 0}, 'stages.*got 0'),
        ({'stages': -1}, 'stages.*got -1'),
        ({'stages': 2.0}, 'stages.*integer.*got 2.0'),
        ({'channels': '3'}, "channels.*integer.*got '3'"),
        ({'channels': 0}, 'channels.*got 0'),
        ({'gamma': 2}, 'gamma.*got 2'),
        ({'gamma': '0.5'}, "gamma.*number.*got '0.5'"),
        ({'t_min': None}, 't_min.*number.*got None'),
        ({'window': 3.0}, 'window.*integer.*got 3.0'),
        ({'update': ['direct']}, 'update=a list'),
        ({'t_min': 0}, 't_min.*0'),
        ({'t_min': 1}, 't_min.*1'),
        ({'t_min': -1e-4}, 't_min.*-0.0001'),
        ({'t_min': math.nan}, 't_min.*nan'),
        ({'window': 0}, 'window.*0'),
        ({'window': 4}, 'window.*4'),
        ({'window': -3}, 'window.*-3'),
        ({'resolution': 0}, 'resolution.*1/2, 1/3.*got 0'),
        ({'resolution': 2}, 'resolution.*got 2'),
        ({'resolution': 0.4}, 'resolution.*got 0.4'),
        ({'resolution': 1e-320}, 'resolution.*or 1/16, got 1e-320'),
        ({'resolution': math.nan}, 'resolution.*got nan'),
        ({'resolution': '1/2'}, "resolution.*got '1/2'"),
        ({'genotype': {'scene.last': 'skip'}}, r'scene\.distill_1'),
        ({'genotype': 'ssd_plain'}, r'scene\.distill_1'),
        ({'genotype': {**MIXED, 'scene.last': 'conv_7x7'}}, r"scene\.last.*'conv_7x7'"),
    ],
)
def test_option_errors(options, words):
    with pytest.raises(ValueError, match=words) as error:
        SceneModule(**options)
    assert '\n' not in str(error.value)


def test_state_dict_round_trip_and_copy():
    y = dark(1, 3, 5, 5)
    module = random_module(seed=1)
    expected = module(y).features[-1]
    other = random_module(seed=2)
    assert not torch.equal(other(y).features[-1], expected)
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(other(y).features[-1], expected)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(y).features[-1], expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(module(y).features[-1], expected)


def test_searchable_copy_is_whole():
    """The cells of a copy follow the copy's own alphas."""
    module = random_module(genotype=None)
    y = dark(1, 3, 4, 4)
    twin = copy.deepcopy(module)
    before = module(y).features[-1]
    twin.slots.alphas.data.normal_(std=5)
    assert torch.equal(module(y).features[-1], before)
    assert not torch.equal(twin(y).features[-1], before)


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (7, 1), (8, 12), (9, 14)])
@pytest.mark.parametrize('resolution', [1 / 2, 1 / 3, 0.25, 1 / 16])
def test_resolution(resolution, size):
    """The stages see the averaged image, the last illumination divides the image itself."""
    module, factor = random_module(t_min=0.3, resolution=resolution), round(1 / resolution)
    full = random_module(t_min=0.3)
    y = dark(2, 3, *size)
    small = full(shrink(y, factor))
    t = enlarge(small.illuminations[-1], factor, size)
    output = module(y)
    expected = [*small.features[:2], y / t], [*small.illuminations[:2], t]
    for ours, theirs in zip(itertools.chain(*output), itertools.chain(*expected), strict=True):
        torch.testing.assert_close(ours, theirs.clamp(0, 1), rtol=0, atol=1e-14)
    assert output.illuminations[-1].min() >= 0.3 and output.illuminations[-1].max() <= 1


def test_full_resolution_is_the_default():
    y = dark(2, 3, 7, 6, dtype=torch.float32)
    outputs = [SceneModule().eval()]
    outputs.append(copy.deepcopy(outputs[0]))
    outputs[1].resolution = 1
    outputs[0], outputs[1] = (itertools.chain(*module(y)) for module in outputs)
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_resolution_is_a_switch():
    module = random_module()
    module.resolution = 0.33
    assert module.resolution == 1 / 3
    y = dark(1, 3, 10, 11)
    other = random_module(resolution=1 / 3)
    assert torch.equal(module(y).features[-1], other(y).features[-1])
    with pytest.raises(ValueError, match='resolution'):
        module.resolution = 0.4
    assert module.resolution == 1 / 3


@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', None])
def test_gradients_at_a_lower_resolution(genotype):
    """Of the image and of a weight against finite differences; every weight has one; kept or computed again."""
    module = random_module(scale=1.0, stages=2, resolution=0.5, genotype=genotype)
    y = dark(1, 3, 3, 5)
    weight = module.cells[0].fuse.weight
    last = lambda y, _: (module(y).features[-1], module(y).illuminations[-1])  # noqa: E731
    torch.autograd.gradcheck(last, (y.requires_grad_(), weight))
    twin = copy.deepcopy(module)
    twin.with_cp = True
    for ours, expected in zip(
        values_and_gradients(twin, y.detach()), values_and_gradients(module, y.detach()), strict=True
    ):
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    module(y).features[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.cells.parameters())


@AMP
def test_amp_at_a_lower_resolution(device, dtype):
    """The division is float32's, with illuminations that half precision cannot hold."""
    module = SceneModule(t_min=1e-8, resolution=0.5).to(device)
    y = very_dark(module, device)
    with torch.autocast(device, dtype):
        output = module(y)
    u, t = output.features[-1], output.illuminations[-1]
    assert u.dtype == t.dtype == torch.float32
    torch.testing.assert_close(t, torch.full_like(t, 1e-8))
    assert torch.equal(u, (y > 0).float())


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@pytest.mark.parametrize('resolution', [1, 0.25])
def test_trace(resolution):
    module = SceneModule(resolution=resolution).eval()
    with torch.no_grad():
        traced = torch.jit.trace(module, torch.rand(1, 3, 6, 5), strict=False)
        y = torch.rand(2, 3, 9, 4)  # another batch and size than the one traced
        for ours, expected in zip(itertools.chain(*traced(y)), itertools.chain(*module(y)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_export():
    module = SceneModule().eval()
    y = torch.rand(1, 3, 9, 7)
    size = {2: torch.export.Dim('height', min=2), 3: torch.export.Dim('width', min=2)}
    with torch.no_grad():
        program = torch.export.export(module, (torch.rand(1, 3, 6, 5),), dynamic_shapes=(size,)).module()
        for ours, expected in zip(itertools.chain(*program(y)), itertools.chain(*module(y)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def values_and_gradients(module, y):
    """Everything that a training sees: outputs of all stages, and the gradients of one random projection of them."""
    parameters = [p for name, p in module.named_parameters() if name != 'slots.alphas' or module.slots.searchable]
    y = y.clone().requires_grad_()
    for parameter in parameters:
        parameter.requires_grad_()
    outputs = list(itertools.chain(*module(y)))
    generator = torch.Generator().manual_seed(7)
    cotangents = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in outputs]
    gradients = torch.autograd.grad(outputs, [y, *parameters], cotangents, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in outputs], gradients


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('warm_start', WARM_STARTS)
def test_checkpointed_stages_have_the_same_gradients(warm_start, with_cp):
    """Searchable: of the weights, of the architecture and of the image, against the plain mixing, stages kept."""
    plain = random_module(genotype=None, warm_start=warm_start, scale=1.0)
    module = copy.deepcopy(plain)
    module.with_cp = with_cp
    for operation in plain.modules():
        if isinstance(operation, MixedOp):
            operation.merged = False
    y = dark(2, 3, 6, 5)
    for ours, expected in zip(values_and_gradients(module, y), values_and_gradients(plain, y), strict=True):
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('genotype', ['ruas_enhance_journal', MIXED], ids=['journal', 'mixed'])
def test_checkpointed_stages_of_a_derived_module(genotype):
    module, y = random_module(genotype=genotype), dark(1, 3, 6, 5)
    twin = copy.deepcopy(module)
    twin.with_cp = True
    for ours, expected in zip(values_and_gradients(twin, y), values_and_gradients(module, y), strict=True):
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_checkpointed_stages_keep_less():
    kept = {}
    for with_cp in (False, True):
        module, sizes = SceneModule(genotype=None, with_cp=with_cp), {}

        def pack(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            output = module(dark(1, 3, 40, 40, dtype=torch.float32))
        kept[with_cp] = sum(sizes.values())
        assert output.features[-1].requires_grad
    assert kept[True] < 0.3 * kept[False]


@pytest.mark.parametrize('size', [(1, 1), (1, 4), (6, 5)])
def test_local_maximum_and_its_gradient_are_those_of_pooling(size):
    """Also where numbers are equal: the first of them gets the gradient."""
    torch.manual_seed(0)
    x = (torch.randint(0, 3, (2, 3, *size)) / 2).double().requires_grad_()
    expected = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)
    ours = SceneModule()._local_max(x)
    assert torch.equal(ours, expected)
    cotangent = torch.randn_like(x)
    (a,), (b,) = (torch.autograd.grad(value, x, cotangent) for value in (ours, expected))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
