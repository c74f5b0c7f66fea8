"""Noise of our own, on images that have little: what noise removal and noise estimation can learn from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SyntheticNoise:
    """Makes pairs of clean and noisy images from scene features.

    Dark photographs have noise that nobody knows, and those without noise are what an unpaired data set lacks. But the
    mean of a block of pixels has a fraction of their noise, and photographs look alike at every scale. So the scene
    features are reduced to such means, and known noise is put on them.

    The noise is Poisson-Gaussian, of variance read^2 + shot^2 u (Foi et al., IEEE TIP 2008), each deviation drawn
    uniformly from [0, ``strength``], apart for each image, so that there are always nearly clean ones. Neighbouring
    pixels share some of it, as demosaicing, scaling and compression leave it; how much is drawn as well. What goes
    beyond [0, 1] is cut off.

    Args:
        reduction (int): Side in pixels of the blocks; 1 takes the features as they are, which suits clean images.
        strength (float): Largest standard deviation of either kind of noise, in the units of u^K.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(self, reduction: int = 4, strength: float = 0.15) -> None:
        if reduction < 1:
            raise ValueError(f'SyntheticNoise needs reduction >= 1, not {reduction}.')
        if not strength > 0:
            raise ValueError(f'SyntheticNoise needs strength > 0, not {strength}.')
        self.reduction = reduction
        self.strength = strength

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Make a pair. No gradient reaches ``u``.

        Args:
            u (Tensor): Scene features of shape (N, C, H, W) in [0, 1], any size from 1x1.

        Returns:
            tuple[Tensor, Tensor]: Clean and noisy images as of :meth:`reduce` and :meth:`add`.
        """
        clean = self.reduce(u.detach())
        return clean, self.add(clean)

    def reduce(self, u: Tensor) -> Tensor:
        """Return the means of blocks, which have less noise.

        Args:
            u (Tensor): Images of shape (N, C, H, W).

        Returns:
            Tensor: Images of ceil(H / reduction) x ceil(W / reduction) pixels.
        """
        return F.adaptive_avg_pool2d(u, [-(-side // self.reduction) for side in u.shape[-2:]])

    def add(self, u: Tensor) -> Tensor:
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


class SyntheticNoiseLoss(nn.Module):
    """What losses that learn from synthetic noise share.

    Args:
        reduction (int): See :class:`SyntheticNoise`.
        strength (float): See :class:`SyntheticNoise`.
        weight (float): Weight of the loss.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(self, reduction: int = 4, strength: float = 0.15, weight: float = 1.0) -> None:
        super().__init__()
        self.synthetic_noise = SyntheticNoise(reduction, strength)
        self.weight = weight
