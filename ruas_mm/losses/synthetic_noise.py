"""Noise of our own, on images that have little: what noise removal and noise estimation can learn from."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SyntheticNoise:
    """Makes pairs of clean and noisy images from scene features.

    Dark photographs have noise that nobody knows, and those without noise are what an unpaired data set lacks. But the
    mean of a block of pixels has a fraction of their noise, and photographs look alike at every scale. So the scene
    features are reduced to such means, and known noise is put on them.

    The noise is Poisson-Gaussian, of variance read^2 + shot^2 u (Foi et al., IEEE TIP 2008). Both deviations are drawn
    apart for each image, as ``strength`` r^``power`` with r uniform in [0, 1]; some images may get none at all. What
    goes beyond [0, 1] is cut off.

    Neighbouring pixels may share some of it, as demosaicing, scaling and compression leave it. Dark photographs that
    were not compressed much have white noise (LOL's is: neighbours correlate by 0 to 0.2 where FiveK's texture does by
    0.3 to 0.8), which is easier to tell from texture.

    Args:
        reduction (int): Side in pixels of the blocks; 1 takes the features as they are, which suits clean images.
        strength (float): Largest standard deviation of either kind of noise, in the units of u^K, above 0.
        power (float): Above 0: with 1 all strengths are equally frequent, with more the weak ones prevail.
        correlation (float): In [0, 1]. How much neighbours share is drawn uniformly from 0 to this part of the most,
            which is half of each of a pixel's neighbours; 0 is white noise.
        noise_free (float): Share of images without noise, in [0, 1).

    Raises:
        ValueError: If an option has no such value.
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
            ('reduction', reduction, reduction >= 1, '>= 1'),
            ('strength', strength, strength > 0, '> 0'),
            ('power', power, power > 0, '> 0'),
            ('correlation', correlation, 0 <= correlation <= 1, 'in [0, 1]'),
            ('noise_free', noise_free, 0 <= noise_free < 1, 'in [0, 1)'),
        ):
            if not holds:
                raise ValueError(f'SyntheticNoise needs {option} {words}, not {value}.')
        self.reduction = reduction
        self.strength = strength
        self.power = power
        self.correlation = correlation
        self.noise_free = noise_free

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make a pair of images. No gradient reaches ``u``.

        Args:
            u (Tensor): Scene features of shape (N, C, H, W) in [0, 1], any size from 1x1.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Clean images as of :meth:`reduce`, then noisy ones and the noise's level as
            of :meth:`add`.
        """
        clean = self.reduce(u.detach())
        return clean, *self.add(clean)

    def reduce(self, u: Tensor) -> Tensor:
        """Return the means of blocks, which have less noise.

        Args:
            u (Tensor): Images of shape (N, C, H, W).

        Returns:
            Tensor: Images of ceil(H / reduction) x ceil(W / reduction) pixels.
        """
        return F.adaptive_avg_pool2d(u, [-(-side // self.reduction) for side in u.shape[-2:]])

    def add(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Draw noise from torch's global generator and add it.

        Args:
            u (Tensor): Images of shape (N, C, H, W) in [0, 1].

        Returns:
            tuple[Tensor, Tensor]: Noisy images in [0, 1]; the noise's level, which is its expected absolute value
            before the cut, of the same shape.
        """
        read, shot, shared, chance = u.new_empty(4, len(u), 1, 1, 1).uniform_(0, 1)
        noise = torch.randn_like(u)
        for dim in (-2, -1):
            # A pixel and up to half of each of its neighbours, at the same variance.
            spread = self.correlation * shared / 2
            noise = (noise + spread * (noise.roll(1, dim) + noise.roll(-1, dim))) / (1 + 2 * spread**2).sqrt()
        deviation = self.strength * (read ** (2 * self.power) + shot ** (2 * self.power) * u).sqrt()
        deviation = deviation * (chance >= self.noise_free)
        return (u + deviation * noise).clamp(0, 1), deviation * (2 / math.pi) ** 0.5


class SyntheticNoiseLoss(nn.Module):
    """What losses that learn from synthetic noise share.

    Args:
        weight (float): Weight of the loss.
        **noise: Options of :class:`SyntheticNoise`.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(self, weight: float = 1.0, **noise: Any) -> None:
        super().__init__()
        self.synthetic_noise = SyntheticNoise(**noise)
        self.weight = weight
