"""The optimizer against the multiplicative update on the simplex, written out."""

import copy

import mmengine.optim  # noqa: F401 - registers the schedulers
import pytest
import torch
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS

from ruas_mm import ExponentiatedGradient
from ruas_mm.search import SearchSlots

FLOAT64 = torch.float64


def parameter(*shape, seed=0):
    return torch.nn.Parameter(torch.randn(*shape, dtype=FLOAT64, generator=torch.Generator().manual_seed(seed)))


def loss_of(theta):
    """Any smooth function of the probabilities; its gradient differs from candidate to candidate."""
    weights = torch.linspace(-1, 2, theta.numel(), dtype=FLOAT64).view_as(theta)
    return (weights * theta.sqrt()).sum() + theta.square().sum().exp()


def multiplicative(theta, lr, loss):
    theta = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta)
    moved = theta * torch.exp(-lr * gradient)
    return (moved / moved.sum(dim=-1, keepdim=True)).detach()


@pytest.mark.parametrize('shape', [(4,), (3, 5), (2, 3, 4)])
def test_a_step_is_the_multiplicative_update_of_the_probabilities(shape):
    alpha = parameter(*shape)
    optimizer = ExponentiatedGradient([alpha], lr=0.3, min_probability=1e-30)
    theta = alpha.detach().softmax(-1)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(alpha.softmax(-1)).backward()
        optimizer.step()
        theta = multiplicative(theta, 0.3, loss_of)
        torch.testing.assert_close(alpha.detach().softmax(-1), theta, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('temperature', [0.2, 3.0])
def test_the_temperature_of_the_slots_belongs_to_the_loss(temperature):
    """softmax(alpha / T) is theta^(1/T) / Z: the update is that of theta at temperature 1."""
    slots = SearchSlots('a', ['x', 'y'], ['skip', 'conv_1x1', 'conv_3x3'])
    slots.alphas = parameter(2, 3)
    slots.temperature = temperature
    loss_of(torch.stack(slots.probs())).backward()

    def tempered(theta):
        power = theta.pow(1 / temperature)
        return loss_of(power / power.sum(dim=-1, keepdim=True))

    expected = multiplicative(slots.alphas.softmax(-1), 0.1, tempered)
    ExponentiatedGradient([slots.alphas], lr=0.1).step()
    torch.testing.assert_close(slots.alphas.detach().softmax(-1), expected, rtol=1e-12, atol=1e-14)


def test_a_constant_added_to_a_row_changes_nothing():
    one, other = parameter(2, 4), parameter(2, 4)
    with torch.no_grad():
        other += torch.tensor([[100.0], [-7.0]], dtype=FLOAT64)
    for alpha in (one, other):
        loss_of(alpha.softmax(-1)).backward()
        ExponentiatedGradient([alpha], lr=0.5).step()
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)  # both are log(theta) now
    torch.testing.assert_close(one.exp().sum(-1), torch.ones(2, dtype=FLOAT64), rtol=1e-12, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, FLOAT64])
def test_probabilities_that_underflow_stay_finite_and_can_come_back(dtype):
    alpha = torch.nn.Parameter(torch.tensor([[0.0, -2000.0, -30.0]], dtype=dtype))
    optimizer = ExponentiatedGradient([alpha], lr=1.0, min_probability=1e-6)
    costs = torch.tensor([1.0, 0.0, 0.0], dtype=dtype)

    def step():
        optimizer.zero_grad()
        (costs * alpha.softmax(-1)).sum().backward()
        optimizer.step()
        assert alpha.isfinite().all()
        return alpha.detach().softmax(-1)

    assert step().min() > 0.9e-6
    for _ in range(40):
        theta = step()
    assert theta[0, 0] < 1e-5  # the costly candidate was certain at first
    assert alpha.max() <= 0 and alpha.min() >= -14


def test_parameters_without_a_gradient_stay():
    resting, stepping = parameter(1, 3), parameter(1, 3, seed=1)
    before = resting.detach().clone()
    stepping.grad = torch.tensor([[0.1, -0.1, 0.0]], dtype=FLOAT64)
    ExponentiatedGradient([resting, stepping], lr=0.1).step()
    assert torch.equal(resting, before)


def test_state_is_restored_and_schedulers_act_on_the_rate():
    runs = []
    for stop in (None, 3):
        alpha = parameter(2, 4)
        optimizer = OPTIMIZERS.build(dict(type='ruas_mm.ExponentiatedGradient', lr=0.4, params=[alpha]))
        config = dict(type='MultiStepLR', milestones=[2], gamma=0.5, by_epoch=False, optimizer=optimizer)
        scheduler = PARAM_SCHEDULERS.build(config)
        for step in range(5):
            if step == stop:  # a new process
                alpha = torch.nn.Parameter(alpha.detach().clone())
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = ExponentiatedGradient([alpha], lr=9.0)
                optimizer.load_state_dict(state)
                saved, scheduler = scheduler.state_dict(), PARAM_SCHEDULERS.build({**config, 'optimizer': optimizer})
                scheduler.load_state_dict(saved)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            loss_of(alpha.softmax(-1)).backward()
            optimizer.step()
            scheduler.step()
        assert optimizer.param_groups[0]['lr'] == pytest.approx(0.2)
        runs.append(alpha.detach())
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ('options', 'words'),
    [({'lr': -1}, 'lr of .* at least 0, got -1'), ({'lr': 'auto'}, "got 'auto'"), ({'min_probability': 0}, 'got 0')],
)
def test_options_that_do_not_exist(options, words):
    with pytest.raises(ValueError, match=words):
        ExponentiatedGradient([parameter(1, 2)], **options)
