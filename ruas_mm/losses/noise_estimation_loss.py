"""Supervision of the noise estimator, which the paper leaves open: noise of our own, on images that have little."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoiseEstimationLoss(nn.Module):
    """Has the noise estimator find noise that was added to scene features (our choice, METHOD §5).

    Dark photographs have noise that nobody knows, and those without noise are what an unpaired data set lacks. But the
    mean of a block of pixels has a fraction of their noise, and photographs look alike at every scale. So the scene
    features are reduced to such means, known noise is put on them, and the estimator has to tell it, pixel by pixel:
    the loss is the mean squared error. Its score then is in the units of u^K: the noise's mean absolute value, or
    somewhat less, since a guess in doubt is a small one. That is how the authors' own weights behave (see
    :class:`ruas_mm.NoiseEstimator`), so that one threshold serves both.

    The noise is Poisson-Gaussian, of variance read^2 + shot^2 u (Foi et al., IEEE TIP 2008), each deviation drawn
    uniformly from [0, ``strength``], apart for each image, so that there are always nearly clean ones. Neighbouring
    pixels share some of it, as demosaicing, scaling and compression leave it; how much is drawn as well. The target is
    what remains after the values are clamped to [0, 1].

    Args:
        reduction (int): Side in pixels of the blocks; 1 takes the features as they are, which suits clean images.
        strength (float): Largest standard deviation of either kind of noise, in the units of u^K.
        weight (float): Weight of the loss.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(self, reduction: int = 4, strength: float = 0.15, weight: float = 1.0) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f'NoiseEstimationLoss needs reduction >= 1, not {reduction}.')
        if not strength > 0:
            raise ValueError(f'NoiseEstimationLoss needs strength > 0, not {strength}.')
        self.reduction = reduction
        self.strength = strength
        self.weight = weight

    def forward(self, estimator: Callable[[Tensor], Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute the loss. No gradient reaches ``u``.

        Args:
            estimator (Callable): The noise estimator.
            u (Tensor): Scene features u^K of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            dict[str, Tensor]: Weighted scalar ``loss_noise_estimate``.
        """
        clean = self.reduce(u.detach())
        noisy = self.add_noise(clean)
        return {'loss_noise_estimate': self.weight * F.mse_loss(estimator(noisy), noisy - clean)}

    def reduce(self, u: Tensor) -> Tensor:
        """Return the means of blocks, which have less noise.

        Args:
            u (Tensor): Images of shape (N, C, H, W).

        Returns:
            Tensor: Images of ceil(H / reduction) x ceil(W / reduction) pixels.
        """
        return F.adaptive_avg_pool2d(u, [-(-side // self.reduction) for side in u.shape[-2:]])

    def add_noise(self, u: Tensor) -> Tensor:
        """Draw noise from torch's global generator and add it.

        Args:
            u (Tensor): Images of shape (N, C, H, W) in [0, 1].

        Returns:
            Tensor: Noisy images in [0, 1].
        """
        read, shot, shared = u.new_empty(3, len(u), 1, 1, 1).uniform_(0, 1)
        noise = torch.randn_like(u)
        for dim in (-2, -1):
            # A pixel and up to half of each of its neighbours, at the same variance.
            spread = shared / 2
            noise = (noise + spread * (noise.roll(1, dim) + noise.roll(-1, dim))) / (1 + 2 * spread**2).sqrt()
        return (u + self.strength * (read**2 + shot**2 * u).sqrt() * noise).clamp(0, 1)
