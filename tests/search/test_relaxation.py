"""Slots that draw one candidate instead of mixing all of them."""

import copy

import pytest
import torch

from ruas_mm.modules import SceneModule
from ruas_mm.search import SCENE_SPACE, DrawnCandidate, MixedOp, SearchSlots

DRAWING = ['gumbel', 'sampled']


def slots_of(rows, relaxation='gumbel'):
    rows = torch.as_tensor(rows, dtype=torch.float64)
    slots = SearchSlots('a', [f's{i}' for i in range(len(rows))], SCENE_SPACE[: rows.shape[1]])
    slots.alphas = torch.nn.Parameter(rows.clone(), requires_grad=False)
    slots.relaxation = relaxation
    return slots


def drawn(slots):
    return [candidate.index for candidate in slots.probs()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def frequencies(slots, uniform):
    counts, source = torch.zeros(slots.alphas.shape), generator()
    for _ in range(3000):
        slots.draw(source, uniform)
        for row, index in zip(counts, drawn(slots), strict=True):
            row[index] += 1
    return counts.double() / 3000


@pytest.mark.parametrize('temperature', [0.1, 10.0])
def test_candidates_are_drawn_with_their_probabilities(temperature):
    """Whatever the temperature, which is of the gradient alone. The standard error is below 0.01."""
    slots = slots_of([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    slots.temperature = temperature
    torch.testing.assert_close(frequencies(slots, False), slots.alphas.softmax(-1), rtol=0, atol=0.04)


def test_uniform_draws_are_among_the_open_candidates():
    slots = slots_of([[0.0, 3.0, -1.0], [2.0, 0.0, 0.1]], 'sampled')
    slots.keep(2)
    expected = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(frequencies(slots, True), expected, rtol=0, atol=0.04)
    assert frequencies(slots, False)[:, 1].tolist() == pytest.approx([1 / (1 + torch.e**-3), 0], abs=0.04)


@pytest.mark.parametrize('closed', [False, True])
@pytest.mark.parametrize('temperature', [0.3, 1.0, 4.0])
def test_the_gradient_is_that_of_the_soft_sample(temperature, closed):
    """With s = softmax((a + noise) / T) and the drawn i: dL/da_k = (dL/dy . o_i(x)) s_i (1[k = i] - s_k) / T."""
    torch.manual_seed(0)
    slots = slots_of([[0.3, -0.2, 0.1, 0.4]], 'sampled')
    if closed:
        slots.keep(3)
    slots.temperature = temperature
    slots.draw(generator(3))
    slots.alphas.requires_grad_()
    mixed = slots.build(0, 2, 2).double()
    x, cotangent = torch.randn(2, 1, 2, 5, 4, dtype=torch.float64).unbind()
    (candidate,) = slots.probs()
    assert candidate.weight.item() == 1
    y = mixed(x, candidate)
    (gradient,) = torch.autograd.grad(y, slots.alphas, cotangent)

    noise = -(-torch.rand(1, 4, generator=generator(3), dtype=torch.float64).log()).log()
    if closed:
        noise[0, slots.alphas.argmin()] = -torch.inf
    logits = (slots.alphas.detach() + noise)[0]
    soft, i = (logits / temperature).softmax(0), logits.argmax()
    assert candidate.index == i
    slope = (cotangent * mixed.operations[i](x)).sum()
    expected = slope * soft[i] * (torch.eye(4, dtype=torch.float64)[i] - soft) / temperature
    torch.testing.assert_close(gradient[0], expected, rtol=1e-11, atol=1e-12)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize('relaxation', DRAWING)
def test_a_draw_holds_until_the_next_and_takes_no_random_numbers(relaxation):
    slots = slots_of(torch.zeros(20, 7), relaxation)
    slots.draw(generator(1))
    before = torch.get_rng_state()
    first = drawn(slots)
    assert first == drawn(slots) and torch.equal(before, torch.get_rng_state())
    slots.draw(generator(2))
    assert first != drawn(slots)
    slots.draw(generator(1))
    assert first == drawn(slots)


@pytest.mark.parametrize('relaxation', DRAWING)
def test_without_a_fixed_draw_each_forward_draws_from_the_global_generator(relaxation):
    slots = slots_of(torch.zeros(20, 7), relaxation)
    torch.manual_seed(0)
    first, second = drawn(slots), drawn(slots)
    assert first != second
    torch.manual_seed(0)
    assert drawn(slots) == first


@pytest.mark.parametrize('relaxation', DRAWING)
def test_evaluation_runs_the_most_probable_open_candidate(relaxation):
    slots = slots_of([[0.0, 1.0, 0.5], [0.3, 0.1, 0.2]], relaxation).eval()
    assert slots.probs() == (DrawnCandidate(1), DrawnCandidate(0))
    assert list(slots.derive().values()) == ['conv_1x1', 'skip']


def test_closed_candidates_are_neither_chosen_nor_probable():
    slots = slots_of([[0.0, 1.0, 0.5], [0.3, 0.1, 0.2]], 'sampled')
    slots.keep(2)
    slots.keep(3)  # more than are open
    assert slots.open_candidates.tolist() == [[False, True, True], [True, False, True]]
    slots.alphas += torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])  # as weight decay may move them
    assert list(slots.derive().values()) == ['conv_1x1', 'skip']
    assert list(slots.probabilities()['a.s0'].values()) == pytest.approx([0, 0.6225, 0.3775], abs=1e-4)
    slots.keep(1)
    assert drawn(slots) == [1, 0]
    assert list(slots.state_dict()) == ['alphas']  # as ever
    assert copy.deepcopy(slots).derive() == slots.derive()


@pytest.mark.parametrize('normalise', [False, True])
@pytest.mark.parametrize('with_cp', [False, True])
def test_a_scene_module_draws_one_architecture_for_all_stages(with_cp, normalise):
    """Stacked nodes included, it is the mixture with those candidates alone; with_cp runs the same ones again."""
    torch.manual_seed(0)
    module = SceneModule(stages=2, genotype=None, normalise=normalise).double()
    y = 0.4 * torch.rand(1, 3, 8, 9, dtype=torch.float64)
    module.with_cp = with_cp
    module.slots.alphas.requires_grad_()
    for seed in range(4):
        module.slots.relaxation = 'gumbel'
        module.slots.draw(generator(seed))
        found = module.slots.probs()
        drawing = [p for part in module.modules() if isinstance(part, MixedOp) for p in part.parameters()]
        ours = [module(y).features[-1]]
        ours += torch.autograd.grad(ours[0].square().sum(), drawing, allow_unused=True, materialize_grads=True)
        module.slots.relaxation = 'softmax'
        rows = torch.eye(7, dtype=torch.float64)[[candidate.index for candidate in found]]
        module.slots.probs = lambda rows=rows: rows.unbind()
        theirs = [module(y).features[-1]]
        theirs += torch.autograd.grad(theirs[0].square().sum(), drawing)
        del module.slots.probs
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_architecture_gradient_of_a_drawn_cell_survives_with_cp():
    torch.manual_seed(0)
    module = SceneModule(stages=3, genotype=None)
    module.slots.relaxation = 'gumbel'
    module.slots.draw(generator(5))
    module.slots.alphas.requires_grad_()
    y, gradients = 0.4 * torch.rand(1, 3, 8, 9), []
    for module.with_cp in (False, True):
        gradients += torch.autograd.grad(module(y).features[-1].sum(), module.slots.alphas)
    assert gradients[0].abs().sum(-1).min() > 0
    torch.testing.assert_close(*gradients)
