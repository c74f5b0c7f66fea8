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

    clean = loss.synthetic_noise.reduce(u)
    name, value = guess(lambda noisy: noisy - clean)
    assert (name, value.item()) == ('loss_noise_estimate', 0)
    _, value = guess(torch.zeros_like)
    assert torch.equal(seen[0], seen[1]), 'the same random numbers, the same noise'
    assert value.item() == pytest.approx(3 * (seen[0] - clean).square().mean().item())
    assert seen[0].min() >= 0 and seen[0].max() <= 1 and value.item() > 0


def test_or_of_its_level():
    loss, u = NoiseEstimationLoss(target='level', weight=3.0), torch.rand(2, 3, 16, 12)
    torch.manual_seed(0)
    _, _, level = loss.synthetic_noise(u)
    for theta, expected in ((level, 0.0), (torch.zeros_like(level), 3 * level.mean().item())):
        torch.manual_seed(0)
        assert loss(lambda _, theta=theta: theta, u)['loss_noise_estimate'].item() == pytest.approx(expected)


def test_unknown_target():
    with pytest.raises(ValueError, match="must be 'noise' or 'level', got 'sign'"):
        NoiseEstimationLoss(target='sign')


@pytest.mark.parametrize('size', SIZES)
def test_every_size(size):
    torch.manual_seed(0)
    u = torch.rand(2, 3, *size, requires_grad=True)
    estimator = NoiseEstimator()
    loss = NoiseEstimationLoss()(estimator, u)['loss_noise_estimate']
    loss.backward()
    assert loss.isfinite() and u.grad is None, 'it must not move the scene module'
    assert all(p.grad.isfinite().all() for p in estimator.parameters())


@pytest.mark.parametrize(('target', 'iterations', 'lr'), [('noise', 120, 5e-3), ('level', 200, 2e-3)])
def test_the_score_learns_to_tell_noise(target, iterations, lr):
    """A short training on flat images: the score grows with the noise."""
    torch.manual_seed(0)
    estimator, loss = NoiseEstimator(16), NoiseEstimationLoss(target, reduction=1)
    optimizer = torch.optim.Adam(estimator.parameters(), lr)
    for _ in range(iterations):
        u = torch.rand(4, 3, 1, 1).expand(4, 3, 20, 20)
        optimizer.zero_grad()
        loss(estimator, u)['loss_noise_estimate'].backward()
        optimizer.step()
    with torch.no_grad():
        scores = [estimator.score(0.5 + d * torch.randn(8, 3, 32, 32)) for d in (0.0, 0.03, 0.1)]
    assert scores[0].max() < scores[1].min() < scores[1].max() < scores[2].min()
    assert 0.5 < scores[2].mean() / (0.1 * (2 / torch.pi) ** 0.5) < 1.3, 'it is in the units of the noise'
    if target == 'noise':
        assert scores[1].max() < 0.035 < scores[2].min(), "the authors' threshold tells weak from strong"
