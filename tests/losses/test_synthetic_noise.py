import re

import pytest
import torch

from ruas_mm.losses import SyntheticNoise


def test_a_pair():
    u = torch.rand(2, 3, 9, 12, requires_grad=True)
    synthetic = SyntheticNoise(reduction=3)
    clean, noisy, level = synthetic(u)
    assert torch.equal(clean, synthetic.reduce(u)) and not clean.requires_grad
    assert noisy.shape == clean.shape == level.shape == (2, 3, 3, 4)
    assert noisy.min() >= 0 and noisy.max() <= 1 and (noisy != clean).any()


def test_blocks():
    u = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    expected = u.view(2, 3, 2, 4, 3, 4).mean(dim=(3, 5))
    torch.testing.assert_close(SyntheticNoise().reduce(u), expected)
    assert torch.equal(SyntheticNoise(reduction=1).reduce(u), u)
    assert SyntheticNoise().reduce(u[..., :5, :1]).shape == (2, 3, 2, 1)
    noise = 0.5 + 0.1 * torch.randn(1, 3, 200, 200)
    assert SyntheticNoise().reduce(noise).std().item() == pytest.approx(0.1 / 4, rel=0.05)


def test_noise_is_as_described():
    """Without bias, of variance read^2 + shot^2 u; strength and correlation differ from image to image."""
    torch.manual_seed(0)
    synthetic = SyntheticNoise(strength=0.1)
    dark, bright = torch.full((40, 3, 64, 64), 0.4), torch.full((40, 3, 64, 64), 0.6)
    u = torch.cat([dark, bright], dim=-1)
    noisy, level = synthetic.add(u)
    noise = noisy - u
    assert noise.mean().abs() < 1e-3
    deviation = noise.std(dim=(1, 2, 3))
    assert deviation.min() < 0.02 < 0.07 < deviation.max() < 0.1 * (1 + 0.5) ** 0.5 * 1.05
    variances = torch.stack([half.var(dim=(1, 2, 3)) for half in noise.chunk(2, dim=-1)])
    read, shot = _solve(variances)
    assert (read > -1e-3).all() and (read < 0.1**2 * 1.3).all()
    assert (shot > -1e-3).all() and (shot < 0.1**2 * 1.5).all()
    inner = noise[..., :64]
    correlation = (inner[..., 1:] * inner[..., :-1]).mean(dim=(1, 2, 3)) / inner.square().mean(dim=(1, 2, 3))
    assert correlation.min() < 0.15 and 0.5 < correlation.max() < 0.7
    torch.testing.assert_close(noise.abs().mean(dim=(1, 2, 3)), level.mean(dim=(1, 2, 3)), rtol=0.1, atol=1e-4)


def _solve(variances):
    """From the variances at 0.4 and 0.6, those of read noise and of photon noise at white."""
    shot = (variances[1] - variances[0]) / 0.2
    return variances[0] - 0.4 * shot, shot


def test_white_noise():
    torch.manual_seed(0)
    u = torch.full((8, 3, 64, 64), 0.5)
    noise = SyntheticNoise(strength=0.1, correlation=0.0).add(u)[0] - u
    for dim in (1, 2, 3):  # neither do channels share any
        assert (noise * noise.roll(1, dim)).mean().abs() < 0.02 * noise.square().mean()


def test_weak_noise_prevails():
    """Of the deviations, power 1 leaves half above half the strength, power 3 a fifth."""
    torch.manual_seed(0)
    u = torch.zeros(4000, 1, 1, 1)  # black has no shot noise
    for power in (1.0, 3.0):
        level = SyntheticNoise(strength=0.2, power=power).add(u)[1] / (2 / torch.pi) ** 0.5
        assert level.max().item() == pytest.approx(0.2, rel=0.01)
        assert (level > 0.1).float().mean().item() == pytest.approx(1 - 0.5 ** (1 / power), abs=0.03)


def test_images_without_noise():
    torch.manual_seed(0)
    u = torch.rand(1000, 3, 2, 2)
    noisy, level = SyntheticNoise(noise_free=0.3).add(u)
    free = (noisy == u).flatten(1).all(dim=1)
    assert torch.equal(free, (level == 0).flatten(1).all(dim=1))
    assert free.float().mean().item() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'reduction': 0}, 'reduction of SyntheticNoise must be at least 1, got 0'),
        ({'strength': 0.0}, 'strength of SyntheticNoise must be above 0, got 0.0'),
        ({'power': 0.0}, 'power of SyntheticNoise must be above 0, got 0.0'),
        ({'correlation': 1.5}, 'correlation of SyntheticNoise must be in [0, 1], got 1.5'),
        ({'noise_free': 1.0}, 'noise_free of SyntheticNoise must be in [0, 1), got 1.0'),
    ],
)
def test_option_errors(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        SyntheticNoise(**options)
