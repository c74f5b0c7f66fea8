import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ruas_mm.search import HIGH_LEVEL_SPACE, SCENE_SPACE, DrawnCandidate, MixedOp, build_operation

SIZES = [(1, 1), (1, 7), (5, 3), (13, 11)]
ODD_SUBSETS = [
    ('skip', 'conv_3x3', 'dil_conv_3x3_d2'),
    ('res_dil_conv_3x3_d2', 'conv_1x1', 'skip'),
    ('res_conv_1x1', 'res_conv_3x3', 'res_dil_conv_3x3_d2', 'skip', 'conv_3x3'),
    ('conv_7x7', 'dil_conv_3x3_d2'),
    ('dil_conv_5x5_d2', 'dil_conv_3x3_d2', 'conv_1x1'),
    ('dil_conv_7x7_d2', 'dil_conv_5x5_d2', 'dil_conv_3x3_d18'),
    ('skip', 'conv_7x7', 'dil_conv_7x7_d2', 'res_conv_1x1', 'dil_conv_3x3_d6'),
]


class CountConvolutions(TorchDispatchMode):
    """Counts what really runs, whichever function asked for it."""

    def __enter__(self):
        self.count = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 'convolution' in func.name() and 'backward' not in func.name()
        return func(*args, **(kwargs or {}))


def pair(candidates, in_channels=2, out_channels=2, stride=1):
    """Return the merged and the plain form with the same weights, float64."""
    merged = MixedOp(candidates, in_channels, out_channels, stride).double()
    plain = MixedOp(candidates, in_channels, out_channels, stride, merged=False).double()
    plain.load_state_dict(merged.state_dict())
    return merged, plain


def results(mixed, x, probs, cotangent=None):
    """Return the output and the gradients of one random projection with respect to everything that it depends on."""
    x, probs = x.clone().requires_grad_(), probs.clone().requires_grad_()
    y = mixed(x, probs)
    cotangent = torch.ones_like(y) if cotangent is None else cotangent
    gradients = torch.autograd.grad(y, [x, probs, *mixed.parameters()], cotangent)
    return [y.detach(), *gradients]


def assert_same(candidates, size, in_channels=2, out_channels=2, stride=1, probs=None, seed=0, batch=2):
    torch.manual_seed(seed)
    merged, plain = pair(candidates, in_channels, out_channels, stride)
    x = torch.randn(batch, in_channels, *size, dtype=torch.float64)
    if probs is None:
        probs = torch.randn(len(candidates), dtype=torch.float64).softmax(0)
    shape = (batch, out_channels, -(-size[0] // stride), -(-size[1] // stride))
    cotangent = torch.randn(shape, dtype=torch.float64)
    for ours, expected in zip(results(merged, x, probs, cotangent), results(plain, x, probs, cotangent), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize('size', SIZES)
def test_merged_equals_plain_in_the_scene_space(size):
    assert_same(SCENE_SPACE, size, 3, 3)


@pytest.mark.parametrize(('channels', 'stride'), list(itertools.product([(2, 2), (2, 3), (3, 1)], [1, 2])))
def test_merged_equals_plain_in_the_high_level_space(channels, stride):
    for size in [*SIZES, (20, 23)]:  # the last one wide enough for the outer taps of dilation 18
        assert_same(HIGH_LEVEL_SPACE, size, *channels, stride)


@pytest.mark.parametrize('name', sorted({*SCENE_SPACE, *HIGH_LEVEL_SPACE}))
def test_merged_equals_plain_for_a_single_candidate(name):
    for size in SIZES:
        assert_same((name,), size)
        if name in HIGH_LEVEL_SPACE:
            assert_same((name,), size, 2, 3, 2)


@pytest.mark.parametrize('candidates', ODD_SUBSETS)
def test_merged_equals_plain_for_odd_subsets(candidates):
    for size in SIZES:
        assert_same(candidates, size)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    candidates=st.lists(st.sampled_from(sorted({*SCENE_SPACE, *HIGH_LEVEL_SPACE})), min_size=1, max_size=8),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    data=st.data(),
)
def test_merged_equals_plain_property(candidates, size, data):
    """Any candidates in any order, the same one twice too, and any weights: the mixing is linear, no softmax needed."""
    probs = data.draw(st.lists(st.floats(-2, 2), min_size=len(candidates), max_size=len(candidates)))
    stride = 1 if set(candidates) & set(SCENE_SPACE) - set(HIGH_LEVEL_SPACE) else data.draw(st.integers(1, 3))
    assert_same(candidates, size, 2, 2, stride, torch.tensor(probs, dtype=torch.float64), batch=1)


def test_plain_is_the_weighted_sum_of_the_candidates():
    """The reference itself, against convolutions written out."""
    mixed = MixedOp(('skip', 'conv_1x1', 'res_dil_conv_3x3_d2'), 2, 2, merged=False).double()
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    probs = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    one, dilated = mixed.operations[1], mixed.operations[2]
    expected = 0.2 * x + 0.5 * F.conv2d(x, one.weight, one.bias)
    expected = expected + 0.3 * (x + F.conv2d(x, dilated.weight, dilated.bias, padding=2, dilation=2))
    torch.testing.assert_close(mixed(x, probs), expected, rtol=0, atol=1e-14)


def test_second_derivatives_agree():
    """The second-order search differentiates losses of both forms at shifted weights; a search may also go twice."""
    torch.manual_seed(0)
    merged, plain = pair(SCENE_SPACE)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    found = []
    for mixed in (merged, plain):
        probs = torch.linspace(0.1, 0.3, 7, dtype=torch.float64).requires_grad_()
        (first,) = torch.autograd.grad(mixed(x, probs).pow(3).sum(), probs, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [probs, *mixed.parameters()]))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('merged', [True, False])
@pytest.mark.parametrize('space', [SCENE_SPACE, HIGH_LEVEL_SPACE], ids=['scene', 'high_level'])
def test_one_hot_probabilities_give_the_candidate_alone(space, merged):
    torch.manual_seed(0)
    mixed = MixedOp(space, 2, 2, merged=merged).double()
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    for index, name in enumerate(space):
        alone = build_operation(name, 2, 2).double()
        alone.load_state_dict(mixed.operations[index].state_dict())
        probs = torch.zeros(len(space), dtype=torch.float64)
        probs[index] = 1
        torch.testing.assert_close(mixed(x, probs), alone(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ('candidates', 'count'),
    [
        (SCENE_SPACE, 1),
        (HIGH_LEVEL_SPACE, 5),  # dense up to 7x7, dilation 2, and the dilations 6, 12, 18 (METHOD §4)
        (('dil_conv_5x5_d2', 'dil_conv_7x7_d2'), 1),
        (('conv_1x1', 'conv_7x7', 'dil_conv_3x3_d12'), 2),
    ],
    ids=['scene', 'high_level', 'dilated', 'mixed'],
)
def test_merged_runs_fewer_convolutions(candidates, count):
    merged, plain = pair(candidates)
    x, probs = torch.randn(1, 2, 5, 5, dtype=torch.float64), torch.ones(len(candidates), dtype=torch.float64)
    with CountConvolutions() as counter:
        merged(x, probs)
    assert counter.count == count
    with CountConvolutions() as counter:
        plain(x, probs)
    assert counter.count == len(candidates) - candidates.count('skip')


@pytest.mark.parametrize('merged', [True, False])
@pytest.mark.parametrize('space', [SCENE_SPACE, HIGH_LEVEL_SPACE], ids=['scene', 'high_level'])
def test_autocast_is_finite_and_close(space, merged):
    torch.manual_seed(0)
    mixed = MixedOp(space, 3, 3, merged=merged)
    x = torch.rand(2, 3, 6, 7)
    probs = torch.randn(len(space)).softmax(0)
    expected = results(mixed, x, probs)
    with torch.autocast('cpu', torch.bfloat16):
        ours = results(mixed, x, probs)
    for a, b in zip(ours, expected, strict=True):
        assert a.isfinite().all()
        assert (a.float() - b).norm() <= 0.03 * b.norm() + 1e-3


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_module(dtype):
    mixed = MixedOp(SCENE_SPACE, 3, 3).to(dtype)
    y = mixed(torch.rand(1, 3, 5, 4, dtype=dtype), torch.full((7,), 1 / 7, dtype=dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()


def test_weights_are_those_of_the_candidates():
    """A searched slot's weights can be copied into its derived operation by name."""
    mixed = MixedOp(SCENE_SPACE, 3, 3)
    for index, name in enumerate(SCENE_SPACE):
        expected = {key: value.shape for key, value in build_operation(name, 3, 3).state_dict().items()}
        assert {key: value.shape for key, value in mixed.operations[index].state_dict().items()} == expected


def test_errors():
    with pytest.raises(ValueError, match="'conv_4x4'"):
        MixedOp(('conv_1x1', 'conv_4x4'), 3, 3)
    with pytest.raises(ValueError, match="'skip'.*3 -> 4"):
        MixedOp(SCENE_SPACE, 3, 4)
    with pytest.raises(ValueError, match="'res_conv_1x1'.*stride 2"):
        MixedOp(('conv_1x1', 'res_conv_1x1'), 3, 3, stride=2)
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        MixedOp(SCENE_SPACE, 3, 3, merged=False)(torch.zeros(1, 3, 2, 2), torch.ones(6))
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        MixedOp(SCENE_SPACE, 3, 3)(torch.zeros(1, 3, 2, 2), torch.ones(6))


# --- Normalised kernels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('space', 'channels'), [(SCENE_SPACE, (3, 3)), (HIGH_LEVEL_SPACE, (3, 2))])
def test_normalised_merged_equals_plain(space, channels):
    torch.manual_seed(0)
    merged = MixedOp(space, *channels, normalise=True).double()
    plain = MixedOp(space, *channels, merged=False, normalise=True).double()
    plain.load_state_dict(merged.state_dict())
    x = torch.randn(2, channels[0], 20, 23, dtype=torch.float64)
    probs = torch.randn(len(space), dtype=torch.float64).softmax(0)
    for ours, expected in zip(results(merged, x, probs), results(plain, x, probs), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    with CountConvolutions() as counter:
        merged(x, probs)
    assert counter.count == len(merged.kernels(probs)) < len(space)


def test_the_size_of_a_candidate_s_weights_does_not_matter():
    torch.manual_seed(0)
    mixed = MixedOp(HIGH_LEVEL_SPACE, 3, 2, normalise=True).double()
    x, probs = torch.randn(1, 3, 9, 9, dtype=torch.float64), torch.full((10,), 0.1, dtype=torch.float64)
    before = mixed(x, probs)
    with torch.no_grad():
        mixed.operations[3].weight.mul_(10)
    torch.testing.assert_close(mixed(x, probs), before, rtol=1e-12, atol=1e-12)
    ordinary = MixedOp(HIGH_LEVEL_SPACE, 3, 2).double()
    before = ordinary(x, probs)
    with torch.no_grad():
        ordinary.operations[3].weight.mul_(10)
    assert (ordinary(x, probs) - before).abs().max() > 0.01


def test_all_candidates_have_the_shared_norm():
    """Alone, with probability 1, each candidate is a convolution of that norm per output channel, identity included."""
    mixed = MixedOp(SCENE_SPACE, 3, 3, normalise=True).double()
    with torch.no_grad():
        mixed.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
    for row in torch.eye(len(SCENE_SPACE), dtype=torch.float64):
        (kernel,) = mixed.kernels(row)
        torch.testing.assert_close(kernel.weight.flatten(1).norm(dim=1), mixed.scale.data)


def test_the_scale_starts_at_the_mean_norm_and_learns():
    mixed = MixedOp(('conv_1x1', 'conv_3x3'), 2, 2, normalise=True)
    norms = [operation.weight.flatten(1).norm(dim=1) for operation in mixed.operations]
    torch.testing.assert_close(mixed.scale, (norms[0] + norms[1]) / 2)
    with torch.no_grad():
        for operation in mixed.operations:
            operation.weight.mul_(3)
    mixed.reset_scale()
    torch.testing.assert_close(mixed.scale.data, 3 * (norms[0] + norms[1]).detach() / 2)
    mixed(torch.rand(1, 2, 4, 4), torch.tensor([0.4, 0.6])).sum().backward()
    assert mixed.scale.grad.abs().min() > 0


def test_zero_weights_have_finite_gradients():
    mixed = MixedOp(('conv_1x1', 'conv_3x3'), 2, 2, normalise=True)
    with torch.no_grad():
        mixed.operations[0].weight.zero_()
    mixed(torch.rand(1, 2, 4, 4), torch.tensor([0.4, 0.6])).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixed.parameters())


# --- Drawn candidates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('normalise', [False, True])
@pytest.mark.parametrize('merged', [True, False])
@pytest.mark.parametrize(('space', 'channels', 'stride'), [(SCENE_SPACE, 3, 1), (HIGH_LEVEL_SPACE, 2, 2)])
def test_a_drawn_candidate_is_the_mixture_with_that_candidate_alone(space, channels, stride, merged, normalise):
    """Output and gradients, that of the weight included: as of the probability of the candidate."""
    torch.manual_seed(0)
    mixed = MixedOp(space, channels, channels, stride, merged, normalise).double()
    x = torch.randn(2, channels, 7, 6, dtype=torch.float64, requires_grad=True)
    for index in range(len(space)):
        probs = torch.eye(len(space), dtype=torch.float64)[index].requires_grad_()
        weight = torch.ones((), dtype=torch.float64, requires_grad=True)
        expected, y = mixed(x, probs), mixed(x, DrawnCandidate(index, weight))
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mixed(x, DrawnCandidate(index)), y, rtol=0, atol=0)
        cotangent = torch.randn_like(y)
        parameters = [x, *mixed.operations[index].parameters()]
        by_mixing = torch.autograd.grad(expected, [probs, *parameters], cotangent)
        by_drawing = torch.autograd.grad(y, [weight, *parameters], cotangent)
        torch.testing.assert_close(by_drawing[0], by_mixing[0][index])
        for ours, theirs in zip(by_drawing[1:], by_mixing[1:], strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('merged', [True, False])
def test_nothing_but_the_drawn_candidate_runs_or_gets_a_gradient(merged):
    for space in (SCENE_SPACE, HIGH_LEVEL_SPACE):
        for index, name in enumerate(space):
            mixed = MixedOp(space, 2, 2, merged=merged)
            with CountConvolutions() as counter:
                y = mixed(torch.randn(1, 2, 5, 5, requires_grad=True), DrawnCandidate(index))
            assert counter.count == (name != 'skip')
            y.sum().backward()
            for other, operation in enumerate(mixed.operations):
                assert all((p.grad is not None) == (other == index) for p in operation.parameters())
