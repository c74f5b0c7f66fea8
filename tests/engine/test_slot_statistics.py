"""The running test of each slot against closed forms in float64."""

import math

import pytest
import torch

from ruas_mm.engine.slot_statistics import SlotStatistics
from ruas_mm.search import MixedOp, SearchSlots

CANDIDATES = ['conv_1x1', 'conv_3x3', 'dil_conv_3x3_d2']


def slots(prefix='head', names=('a', 'b')):
    group = SearchSlots(prefix, names, CANDIDATES)
    group.alphas.data = group.alphas.data.double()
    return group


def step(group, g, alphas, temperature):
    """The gradient by the chain rule through the softmax: what a loss sum(g * p) has."""
    group.alphas.data, group.temperature = alphas, temperature
    variable = alphas.clone().requires_grad_(True)
    ((variable / temperature).softmax(-1) * g).sum().backward()
    return variable.grad


@pytest.fixture
def steps():
    """Forty steps of two slots: what shifting costs, parameters and temperatures."""
    generator = torch.Generator().manual_seed(0)
    draw = dict(generator=generator, dtype=torch.float64)
    return [
        (torch.randn(2, 3, **draw), torch.randn(2, 3, **draw), 0.3 + torch.rand((), **draw).item()) for _ in range(40)
    ]


def test_means_and_z_are_those_of_the_costs_themselves(steps):
    """Whatever the probabilities and temperatures were, the differences are those of g; the mean is p's."""
    group = slots()
    statistics = SlotStatistics([group])
    centred = []
    for g, alphas, temperature in steps:
        statistics.add([group], [step(group, g, alphas, temperature)])
        centred.append(g - ((alphas / temperature).softmax(-1) * g).sum(-1, keepdim=True))
    h = torch.stack(centred)
    for row, slot in enumerate(group.names):
        assert statistics.steps(slot) == 40
        assert list(statistics.costs(slot)) == CANDIDATES
        assert list(statistics.costs(slot).values()) == pytest.approx(h[:, row].mean(0).tolist(), rel=1e-9)
        for a in range(3):
            for b in range(3):
                if a != b:
                    difference = torch.stack([g[row, a] - g[row, b] for g, _, _ in steps])
                    expected = (difference.mean() / (difference.std() / math.sqrt(40))).item()
                    assert statistics.z(slot, CANDIDATES[a], CANDIDATES[b]) == pytest.approx(expected, rel=1e-9)


def test_it_is_what_a_mixed_operation_costs():
    """g_k = <dL/dK, W_k>: the derivative of the loss along candidate k's own output."""
    torch.manual_seed(0)
    group = slots(names=('a',))
    mixed = MixedOp(CANDIDATES, 2, 2).double()
    x, target = torch.randn(1, 2, 6, 6).double(), torch.randn(1, 2, 6, 6).double()
    group.alphas.data, group.temperature = torch.tensor([[0.3, -0.2, 0.1]]).double(), 0.7
    group.alphas.requires_grad_(True)
    y = mixed(x, group.probs()[0])
    loss = (y - target).square().sum()
    (gradient,) = torch.autograd.grad(loss, group.alphas)
    statistics = SlotStatistics([group])
    statistics.add([group], [gradient])
    slope = 2 * (y - target).detach()
    g = [(slope * operation(x)).sum().item() for operation in mixed.operations]
    mean = sum(p * value for p, value in zip(group.probs()[0].tolist(), g, strict=True))
    assert list(statistics.costs('head.a').values()) == pytest.approx([value - mean for value in g], rel=1e-9)


def test_slots_without_a_gradient_and_too_few_steps():
    group, other = slots(), slots('neck', ['a'])
    statistics = SlotStatistics([group, other])
    assert statistics.z('head.a', 'conv_1x1', 'conv_3x3') is None
    for _ in range(3):
        statistics.add([group], [torch.tensor([[1e-3, -2e-3, 1e-3], [0.0, 0.0, 0.0]])])
    assert statistics.largest_gradient('head.a') == pytest.approx(2e-3)
    assert statistics.largest_gradient('head.b') == 0
    assert statistics.z('head.b', 'conv_1x1', 'conv_3x3') == 0
    assert statistics.z('head.a', 'conv_3x3', 'conv_1x1') == -1e6  # the same each time: no error at all
    assert statistics.steps('neck.a') == 0


def test_a_candidate_that_has_all_but_gone_is_not_blown_up():
    """exp(-40) of probability: rounding in its gradient is no evidence."""
    group = slots(names=('a',))
    group.alphas.data = torch.tensor([[0.0, 0.0, -40.0]]).double()
    statistics = SlotStatistics([group])
    statistics.add([group], [torch.tensor([[0.1, -0.1, 1e-9]])])
    assert abs(statistics.costs('head.a')['dil_conv_3x3_d2']) <= 1e-9 / 1e-6


def test_state_goes_on_bit_by_bit(steps):
    whole, part = SlotStatistics([slots()]), SlotStatistics([slots()])
    group = slots()
    for index, (g, alphas, temperature) in enumerate(steps):
        gradient = step(group, g, alphas, temperature)
        whole.add([group], [gradient])
        if index == 20:
            resumed = SlotStatistics([slots()])
            resumed.load_state_dict(part.state_dict())
            part = resumed
        part.add([group], [gradient])
    assert whole.z('head.a', 'conv_1x1', 'conv_3x3') == part.z('head.a', 'conv_1x1', 'conv_3x3')
    assert whole.costs('head.b') == part.costs('head.b')
