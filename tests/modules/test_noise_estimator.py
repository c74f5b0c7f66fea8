import pytest
import torch
import torch.nn.functional as F

from ruas_mm.modules import NoiseEstimator

SIZES = [(1, 1), (1, 5), (4, 1), (7, 6)]


def images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(**options):
    """A module far from its start."""
    torch.manual_seed(0)
    module = NoiseEstimator(**options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module


def by_the_book(module, u):
    """METHOD §5: 3 -> 32 -> 32 -> 32 -> 32 -> 3, ReLU between."""
    for index in (0, 2, 4, 6, 8):
        u = u.clamp(min=0) if index else u
        u = F.conv2d(u, module[index].weight, module[index].bias, padding=1)
    return u


@pytest.mark.parametrize('size', SIZES)
def test_against_the_formulas(size):
    module, u = build(), images(2, 3, *size)
    theta = by_the_book(module, u)
    assert theta.min() < 0 < theta.max(), 'no activation at the end'
    torch.testing.assert_close(module(u), theta, rtol=1e-10, atol=1e-10)
    expected = torch.stack([image.abs().sum() / image.numel() for image in theta])  # the L1 norm over C·H·W
    torch.testing.assert_close(module.score(u), expected, rtol=1e-10, atol=1e-10)


def test_the_border_is_not_counted():
    module, u = build(), images(2, 3, 7, 9)
    expected = module(u)[..., 2:5, 2:7].abs().mean((1, 2, 3))
    torch.testing.assert_close(module.score(u, border=2), expected, rtol=1e-10, atol=1e-10)


def test_size():
    assert sum(p.numel() for p in NoiseEstimator().parameters()) == 29507  # METHOD §5


@torch.no_grad()
def test_it_starts_with_next_to_no_noise():
    """Below the release's threshold by far, for any image: nothing is removed before something is learnt."""
    u = images(4, 3, 16, 16, dtype=torch.float32)
    for seed in range(5):
        torch.manual_seed(seed)
        score = NoiseEstimator().score(u)
        assert (score > 0).all() and (score < 0.01).all()


def test_every_weight_learns():
    torch.manual_seed(0)
    module = NoiseEstimator()
    module(images(1, 3, 8, 8, dtype=torch.float32)).square().mean().backward()
    # 32 channels, of which some may be silent for one image, but no layer is.
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_an_image_is_the_same_alone_and_in_a_batch():
    module, u = build(), images(3, 3, 6, 5)
    alone = torch.cat([module.score(u[index : index + 1]) for index in range(3)])
    torch.testing.assert_close(module.score(u), alone, rtol=1e-12, atol=1e-12)


def test_autocast():
    module, u = build().float(), images(2, 3, 40, 30, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        score = module.score(u)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, module.score(u), rtol=0.03, atol=0)


def test_channels():
    assert build(channels=5)(images(1, 3, 4, 4)).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match='channels .* at least 1, got 0'):
        NoiseEstimator(0)
