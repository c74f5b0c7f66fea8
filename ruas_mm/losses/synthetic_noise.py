"""Synthetic noise on images that contain little noise, to train the noise removal and noise estimation modules."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SyntheticNoise:
    """Makes pairs of clean and noisy images from scene features.

    The noise of low-light photographs is unknown, and an unpaired data set has no noise-free versions of them. However,
    the mean over a block of pixels has much less noise, and natural images have similar statistics at all scales. The
    scene features are therefore downsampled by block means, and known noise is added.

    The noise is Poisson-Gaussian with variance read^2 + shot^2 u (Foi et al., IEEE TIP 2008). Both deviations are
    sampled independently for each image, as ``strength`` r^``power`` with r uniform in [0, 1]; a fraction of the images
    can be left without noise. The noisy images are clipped to [0, 1].

    The noise of neighbouring pixels can be correlated, as it is after demosaicing, scaling and compression. Low-light
    photographs with little compression have white noise, which is easier to separate from texture (neighbours correlate
    by 0 to 0.2 in the noise of LOL, and by 0.3 to 0.8 in the texture of FiveK).

    Args:
        reduction (int): Side of the blocks in pixels; 1 keeps the features unchanged, which suits clean images.
        strength (float): Maximum standard deviation of either kind of noise, in the units of u^K, above 0.
        power (float): Exponent above 0. With 1, all strengths are equally frequent; larger values make weak noise more
            frequent.
        correlation (float): Upper bound in [0, 1] of the correlation, which is sampled uniformly from 0. At 1, half of
            the noise of each neighbour is added to a pixel; at 0, the noise is white.
        noise_free (float): Fraction of images without noise, in [0, 1).

    Raises:
        ValueError: If an argument is invalid.
    """

    def __init__(
        self,
        reduction: int = 4,
        strength: float = 0.15,
        power: float = 1.0,
        correlation: float = 1.0,
        noise_free: float = 0.0,
    ) -> None:
        for option, value, holds, words in (
            ('reduction', reduction, reduction >= 1, 'at least 1'),
            ('strength', strength, strength > 0, 'above 0'),
            ('power', power, power > 0, 'above 0'),
            ('correlation', correlation, 0 <= correlation <= 1, 'in [0, 1]'),
            ('noise_free', noise_free, 0 <= noise_free < 1, 'in [0, 1)'),
        ):
            if not holds:
                raise ValueError(f'{option} of SyntheticNoise must be {words}, got {value}.')
        self.reduction = reduction
        self.strength = strength
        self.power = power
        self.correlation = correlation
        self.noise_free = noise_free

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make pairs of images. No gradient flows to ``u``.

        Args:
            u (Tensor): Scene features of shape (N, C, H, W) in [0, 1], any size from 1x1.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Clean images from :meth:`reduce`, and noisy images and noise levels from
            :meth:`add`.
        """
        clean = self.reduce(u.detach())
        return clean, *self.add(clean)

    def reduce(self, u: Tensor) -> Tensor:
        """Downsample images by block means, which reduces their noise.

        Args:
            u (Tensor): Images of shape (N, C, H, W).

        Returns:
            Tensor: Images of ceil(H / reduction) x ceil(W / reduction) pixels.
        """
        return F.adaptive_avg_pool2d(u, [-(-side // self.reduction) for side in u.shape[-2:]])

    def add(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise sampled from torch's global generator.

        Args:
            u (Tensor): Images of shape (N, C, H, W) in [0, 1].

        Returns:
            tuple[Tensor, Tensor]: Noisy images in [0, 1] and the noise level, which is the expected absolute value of
            the noise before clipping, of the same shape.
        """
        read, shot, shared, chance = u.new_empty(4, len(u), 1, 1, 1).uniform_(0, 1)
        noise = torch.randn_like(u)
        for dim in (-2, -1):
            # Add up to half of the noise of each neighbour, and keep the variance.
            spread = self.correlation * shared / 2
            noise = (noise + spread * (noise.roll(1, dim) + noise.roll(-1, dim))) / (1 + 2 * spread**2).sqrt()
        deviation = self.strength * (read ** (2 * self.power) + shot ** (2 * self.power) * u).sqrt()
        deviation = deviation * (chance >= self.noise_free)
        return (u + deviation * noise).clamp(0, 1), deviation * (2 / math.pi) ** 0.5


class SyntheticNoiseLoss(nn.Module):
    """Base class of losses that use synthetic noise.

    Args:
        weight (float): Weight of the loss.
        **noise: Arguments of :class:`SyntheticNoise`.

    Raises:
        ValueError: If an argument is invalid.
    """

    def __init__(self, weight: float = 1.0, **noise: Any) -> None:
        super().__init__()
        self.synthetic_noise = SyntheticNoise(**noise)
        self.weight = weight
