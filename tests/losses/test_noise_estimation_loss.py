import pytest
import torch

from ruas_mm.losses import NoiseEstimationLoss
from ruas_mm.modules import NoiseEstimator

SIZES = [(1, 1), (1, 5), (4, 1), (13, 10)]


def test_it_is_the_error_of_the_noise():
    """For a perfect guess 0, for none at all the noise's power; of the clamped image."""
    loss = NoiseEstimationLoss(weight=3.0)
    u = torch.rand(2, 3, 16, 12)
    seen = []

    def guess(answer):
        def estimator(noisy):
            seen.append(noisy)
            return answer(noisy)

        torch.manual_seed(0)
        (value,) = loss(estimator, u).items()
        return value

    clean = loss.reduce(u)
    name, value = guess(lambda noisy: noisy - clean)
    assert (name, value.item()) == ('loss_noise_estimate', 0)
    _, value = guess(torch.zeros_like)
    assert torch.equal(seen[0], seen[1]), 'the same random numbers, the same noise'
    assert value.item() == pytest.approx(3 * (seen[0] - clean).square().mean().item())
    assert seen[0].min() >= 0 and seen[0].max() <= 1 and value.item() > 0


def test_blocks():
    u = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    expected = u.view(2, 3, 2, 4, 3, 4).mean(dim=(3, 5))
    torch.testing.assert_close(NoiseEstimationLoss().reduce(u), expected)
    assert torch.equal(NoiseEstimationLoss(reduction=1).reduce(u), u)
    assert NoiseEstimationLoss().reduce(u[..., :5, :1]).shape == (2, 3, 2, 1)
    noise = 0.5 + 0.1 * torch.randn(1, 3, 200, 200)
    assert NoiseEstimationLoss().reduce(noise).std().item() == pytest.approx(0.1 / 4, rel=0.05)


def test_noise_is_as_described():
    """Without bias, of variance read^2 + shot^2 u; strength and correlation differ from image to image."""
    torch.manual_seed(0)
    loss = NoiseEstimationLoss(strength=0.1)
    dark, bright = torch.full((40, 3, 64, 64), 0.4), torch.full((40, 3, 64, 64), 0.6)
    u = torch.cat([dark, bright], dim=-1)
    noise = loss.add_noise(u) - u
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


def _solve(variances):
    """From the variances at 0.4 and 0.6, those of read noise and of photon noise at white."""
    shot = (variances[1] - variances[0]) / 0.2
    return variances[0] - 0.4 * shot, shot


@pytest.mark.parametrize('size', SIZES)
def test_every_size(size):
    torch.manual_seed(0)
    u = torch.rand(2, 3, *size, requires_grad=True)
    estimator = NoiseEstimator()
    loss = NoiseEstimationLoss()(estimator, u)['loss_noise_estimate']
    loss.backward()
    assert loss.isfinite() and u.grad is None, 'it must not move the scene module'
    assert all(p.grad.isfinite().all() for p in estimator.parameters())


def test_the_score_learns_to_tell_noise():
    """A short training on flat images: the score grows with the noise and tells weak from strong at the threshold."""
    torch.manual_seed(0)
    estimator, loss = NoiseEstimator(16), NoiseEstimationLoss(reduction=1)
    optimizer = torch.optim.Adam(estimator.parameters(), 5e-3)
    for _ in range(120):
        u = torch.rand(4, 3, 1, 1).expand(4, 3, 20, 20)
        optimizer.zero_grad()
        loss(estimator, u)['loss_noise_estimate'].backward()
        optimizer.step()
    with torch.no_grad():
        scores = [estimator.score(0.5 + d * torch.randn(8, 3, 32, 32)) for d in (0.0, 0.03, 0.1)]
    assert scores[0].max() < scores[1].min() < scores[1].max() < 0.035 < scores[2].min()
    assert 0.5 < scores[2].mean() / (0.1 * (2 / torch.pi) ** 0.5) < 1.1, 'it is in the units of the noise'


@pytest.mark.parametrize(
    ('options', 'words'), [({'reduction': 0}, 'reduction >= 1, not 0'), ({'strength': 0.0}, 'strength > 0, not 0.0')]
)
def test_option_errors(options, words):
    with pytest.raises(ValueError, match=words):
        NoiseEstimationLoss(**options)
