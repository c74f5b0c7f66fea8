"""The architecture gradient against closed forms and against autograd through the virtual step, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ruas_mm.search import MixedOp, architecture_gradient


@pytest.fixture
def quadratic():
    """L_train = |w - A a|^2 / 2 + a'Bw, L_val = |w - c|^2 / 2 + |a|^2: the finite difference is exact here."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    data = dict(A=draw(4, 3), B=draw(3, 4), c=draw(4), w0=draw(4), a0=draw(3))
    w, a = nn.Parameter(data['w0'].clone()), nn.Parameter(data['a0'].clone(), requires_grad=False)
    train = lambda: 0.5 * (w - data['A'] @ a).square().sum() + a @ data['B'] @ w  # noqa: E731
    val = lambda: 0.5 * (w - data['c']).square().sum() + a.square().sum()  # noqa: E731
    return w, a, train, val, data


@pytest.mark.parametrize('lr', [0.01, 0.3, 2.0])
@pytest.mark.parametrize('r', [1e-3, 1e-2, 1.0])
def test_second_order_closed_form(quadratic, lr, r):
    w, a, train, val, data = quadratic
    A, B, c, w0, a0 = (data[key] for key in ('A', 'B', 'c', 'w0', 'a0'))
    stepped = w0 - lr * (w0 - A @ a0 + B.T @ a0)
    expected = 2 * a0 - lr * (-A.T + B) @ (stepped - c)
    (g,) = architecture_gradient(train, val, [w], [a], virtual_lr=lr, r=r)
    torch.testing.assert_close(g, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize('options', [dict(virtual_lr=0.3, order=1), dict(virtual_lr=0.0, order=2)])
def test_first_order_is_the_validation_gradient(quadratic, options):
    w, a, train, val, data = quadratic
    (g,) = architecture_gradient(train, val, [w], [a], **options)
    torch.testing.assert_close(g, 2 * data['a0'], rtol=1e-12, atol=0)


def test_extra_term_is_taken_at_the_weights_as_they_are(quadratic):
    w, a, train, val, data = quadratic
    extra = lambda: (a * w[:3]).sum()  # noqa: E731
    (without,) = architecture_gradient(train, val, [w], [a], virtual_lr=0.3)
    (with_extra,) = architecture_gradient(train, val, [w], [a], virtual_lr=0.3, extra_loss=extra, beta=0.5)
    torch.testing.assert_close(with_extra - without, 0.5 * data['w0'][:3], rtol=1e-9, atol=1e-12)


def test_beta_zero_does_not_run_the_extra_loss(quadratic):
    w, a, train, val, _ = quadratic

    def extra():
        raise AssertionError('the detector ran for nothing')

    architecture_gradient(train, val, [w], [a], virtual_lr=0.3, extra_loss=extra, beta=0.0)


class Net(nn.Module):
    """A small searchable network with normalisation and dropout-free smooth activations."""

    def __init__(self):
        super().__init__()
        self.alphas = nn.Parameter(0.1 * torch.randn(2, 3), requires_grad=False)
        candidates = ('conv_1x1', 'conv_3x3', 'dil_conv_3x3_d2')
        self.ops = nn.ModuleList([MixedOp(candidates, 2, 2), MixedOp(candidates, 2, 2)])
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        probs = self.alphas.softmax(-1)
        return self.ops[1](torch.tanh(self.norm(self.ops[0](x, probs[0]))), probs[1])


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Net().double()
    batches = [(torch.randn(2, 2, 6, 5).double(), torch.randn(2, 2, 6, 5).double()) for _ in range(2)]
    return model, batches


@pytest.mark.parametrize('lr', [0.05, 0.5])
def test_second_order_against_autograd_through_the_step(net, lr):
    """The central difference errs by O(eps^2): a relative 1e-6 at r = 1e-3, and four times as much at twice the r."""
    model, (train_batch, val_batch) = net
    weights = {name: p for name, p in model.named_parameters() if name != 'alphas'}
    alphas = model.alphas.detach().clone().requires_grad_()

    def loss(parameters, batch):
        return F.mse_loss(functional_call(model, {**parameters, 'alphas': alphas}, batch[0]), batch[1])

    d = torch.autograd.grad(loss(weights, train_batch), list(weights.values()), create_graph=True)
    stepped = {name: w - lr * g for (name, w), g in zip(weights.items(), d, strict=True)}
    (exact,) = torch.autograd.grad(loss(stepped, val_batch), alphas)

    train = lambda: F.mse_loss(model(train_batch[0]), train_batch[1])  # noqa: E731
    val = lambda: F.mse_loss(model(val_batch[0]), val_batch[1])  # noqa: E731

    def error(r):
        (g,) = architecture_gradient(train, val, list(weights.values()), [model.alphas], virtual_lr=lr, r=r)
        return ((g - exact).norm() / exact.norm()).item()

    (first_order,) = architecture_gradient(train, val, [], [model.alphas], virtual_lr=lr, order=1)
    assert (first_order - exact).norm() / exact.norm() > 1e-3  # the second order is worth testing here
    assert error(1e-3) < 1e-6
    assert 3 < error(0.1) / error(0.05) < 5


def test_leaves_no_trace(net):
    """Weights, .grad, alphas and their flags, bit for bit; another loss's graph stays usable."""
    model, (train_batch, val_batch) = net
    weights = [p for name, p in model.named_parameters() if name != 'alphas']
    F.mse_loss(model(train_batch[0]), train_batch[1]).backward()
    state = copy.deepcopy({name: p.detach() for name, p in model.named_parameters()})
    grads = [p.grad.clone() for p in weights]
    architecture_gradient(
        lambda: F.mse_loss(model(train_batch[0]), train_batch[1]),
        lambda: F.mse_loss(model(val_batch[0]), val_batch[1]),
        weights,
        [model.alphas],
        virtual_lr=0.1,
    )
    for name, p in model.named_parameters():
        assert torch.equal(p, state[name]), name
    assert all(torch.equal(p.grad, g) for p, g in zip(weights, grads, strict=True))
    assert model.alphas.grad is None and not model.alphas.requires_grad


def test_restores_the_weights_after_an_error(quadratic):
    w, a, train, _, data = quadratic

    def broken():
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        architecture_gradient(train, broken, [w], [a], virtual_lr=0.3)
    assert torch.equal(w, data['w0']) and not a.requires_grad


def test_works_under_no_grad(quadratic):
    w, a, train, val, _ = quadratic
    expected = architecture_gradient(train, val, [w], [a], virtual_lr=0.3)
    with torch.no_grad():
        found = architecture_gradient(train, val, [w], [a], virtual_lr=0.3)
    assert torch.equal(expected[0], found[0])


def test_independent_losses_give_zeros(quadratic):
    w, a, train, _, _ = quadratic
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    g, zero = architecture_gradient(train, lambda: a.sum(), [w], [a, unused], virtual_lr=0.3)
    assert torch.equal(g, torch.ones_like(a)) and torch.equal(zero, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize('options', [dict(order=3), dict(r=0.0), dict(virtual_lr=-1.0)])
def test_bad_options(quadratic, options):
    w, a, train, val, _ = quadratic
    with pytest.raises(ValueError, match='architecture_gradient'):
        architecture_gradient(train, val, [w], [a], **{'virtual_lr': 0.1, **options})
