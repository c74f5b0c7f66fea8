import numpy as np
import pytest
import torch

from ruas_mm.losses import DenoisingLoss, SyntheticDenoisingLoss
from ruas_mm.losses.denoising_loss import total_variation
from ruas_mm.modules import NoiseRemoval


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variation_reference(x):
    """METHOD §6 in loops: 2 (|dh x|^2 / n_h + |dw x|^2 / n_w) / N, with n the differences of one image."""
    n, c, height, width = x.shape
    total = 0.0
    for dy, dx in ((1, 0), (0, 1)):
        count = c * (height - dy) * (width - dx)
        squares = sum(
            (x[b, k, i + dy, j + dx] - x[b, k, i, j]) ** 2 for b, k, i, j in np.ndindex(n, c, height - dy, width - dx)
        )
        total += squares / count if count else 0
    return 2 * total / n


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (4, 1), (6, 7)])
@pytest.mark.parametrize('batch', [1, 3])
def test_against_loops(batch, size):
    x, u = images(batch, 3, *size), images(batch, 3, *size, seed=1)
    losses = DenoisingLoss()(lambda _: x, u)
    assert list(losses) == ['loss_denoise_fidelity', 'loss_denoise_smooth']
    mse = ((x - u) ** 2).numpy().mean()
    assert losses['loss_denoise_fidelity'].item() == pytest.approx(1e-7 * mse, rel=1e-11)
    assert losses['loss_denoise_smooth'].item() == pytest.approx(variation_reference(x.numpy()), rel=1e-11)


def test_weights():
    x, u = images(1, 3, 5, 4), images(1, 3, 5, 4, seed=1)
    plain, weighted = DenoisingLoss(1, 1)(lambda _: x, u), DenoisingLoss(3, 5)(lambda _: x, u)
    torch.testing.assert_close(weighted['loss_denoise_fidelity'], 3 * plain['loss_denoise_fidelity'])
    torch.testing.assert_close(weighted['loss_denoise_smooth'], 5 * plain['loss_denoise_smooth'])


def test_gradients():
    x, u = images(2, 3, 4, 5).requires_grad_(), images(2, 3, 4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, u: sum(DenoisingLoss(0.5, 2)(lambda _: x, u).values()), (x, u))


def test_one_pixel_is_smooth():
    """No neighbours, but a gradient for a training to go on with."""
    x = images(1, 3, 1, 1).requires_grad_()
    value = total_variation(x)
    value.backward()
    assert value.item() == 0 and x.grad.abs().max() == 0


def test_synthetic_noise_taken_away():
    """0 for what gives the clean image back; for nothing done, the noise's mean absolute value."""
    loss, u = SyntheticDenoisingLoss(weight=3.0), images(2, 3, 16, 12)
    torch.manual_seed(0)
    clean, noisy, _ = loss.synthetic_noise(u)
    torch.manual_seed(0)
    assert loss(lambda _: clean, u) == {'loss_denoise_synthetic': 0}
    torch.manual_seed(0)
    value = loss(lambda x: x, u)['loss_denoise_synthetic']
    torch.testing.assert_close(value, 3 * (noisy - clean).abs().mean())


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (4, 1), (13, 10)])
def test_synthetic_noise_of_every_size(size):
    torch.manual_seed(0)
    u = torch.rand(2, 3, *size, requires_grad=True)
    removal = NoiseRemoval()
    loss = SyntheticDenoisingLoss()(removal, u)['loss_denoise_synthetic']
    loss.backward()
    assert loss.isfinite() and u.grad is None, 'it must not move the scene module'
    assert all(p.grad.isfinite().all() for p in removal.parameters())


def test_a_short_training_takes_noise_away():
    """Flat images: what remains of noise that it never saw is less, and an image without noise stays as it is."""
    torch.manual_seed(0)
    removal, loss = NoiseRemoval(), SyntheticDenoisingLoss(reduction=1)
    optimizer = torch.optim.Adam(removal.parameters(), 5e-3)
    for _ in range(160):
        u = torch.rand(4, 3, 1, 1).expand(4, 3, 20, 20)
        optimizer.zero_grad()
        loss(removal, u)['loss_denoise_synthetic'].backward()
        optimizer.step()
    flat = torch.full((1, 3, 32, 32), 0.5)
    noisy = flat + 0.08 * torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        after, untouched = removal(noisy), removal(flat)
    inside = (..., slice(8, -8), slice(8, -8))
    assert (after - flat)[inside].std() < 0.75 * (noisy - flat)[inside].std()
    assert (untouched - flat)[inside].abs().max() < 0.03
