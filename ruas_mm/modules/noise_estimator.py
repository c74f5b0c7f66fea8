"""The noise estimator, which decides whether the noise of an image needs to be removed."""

from __future__ import annotations

from itertools import pairwise
from numbers import Integral

import torch
from torch import Tensor, nn

from ruas_mm.utils.text import show


class NoiseEstimator(nn.Sequential):
    """Five convolutions that estimate the noise of an image (paper §4.1, METHOD §5: Psi_e).

    Depending on the loss used in training (:class:`ruas_mm.NoiseEstimationLoss`), the output theta is the signed noise
    of each pixel or its level; the mean absolute value of theta is the noise score of the image. The authors' published
    weights estimate the noise itself: if noise of known strength is added to a noise-free image, their theta has a
    correlation of about 0.9 with it, and the score is the mean absolute value of the noise. A new module estimates
    almost no noise.

    Args:
        channels (int): Number of hidden channels.

    Raises:
        ValueError: If ``channels`` is not a positive integer.
    """

    def __init__(self, channels: int = 32) -> None:
        if not isinstance(channels, Integral) or channels < 1:
            raise ValueError(f'channels of NoiseEstimator must be an integer of at least 1, got {show(channels)}.')
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise((3, channels, channels, channels, channels, 3)):
            convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity='relu')
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])
        with torch.no_grad():
            self[-1].weight.mul_(0.01)

    def score(self, u: Tensor, border: int = 0) -> Tensor:
        """Compute the noise score of each image.

        Args:
            u (Tensor): Images of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.
            border (int): Number of pixels along every side that are excluded from the mean.

        Returns:
            Tensor: Mean |theta| of each image, shape (N,), at least 0.
        """
        interior = slice(border, -border or None)
        theta = self(u)[..., interior, interior]
        # The mean over all pixels is computed in at least float32, even if autocast has made theta half precision.
        return theta.abs().mean(dim=(1, 2, 3), dtype=torch.promote_types(theta.dtype, torch.float32))
