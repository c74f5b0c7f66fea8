"""The noise estimator: whether an image needs its noise removed."""

from __future__ import annotations

from itertools import pairwise
from numbers import Integral

import torch
from torch import Tensor, nn

from ruas_mm.utils.text import show


class NoiseEstimator(nn.Sequential):
    """Five convolutions that guess the noise of an image (paper §4.1, METHOD §5: Psi_e).

    Their output theta is the noise itself, pixel by pixel, with its sign, or its level, as the loss that trained them
    wants (:class:`ruas_mm.NoiseEstimationLoss`); its mean absolute value is the image's noise score. (The authors'
    published weights tell the noise: fed with noise of a known strength on an image without, their theta follows it
    with a correlation of about 0.9, and the score is the noise's mean absolute value.) A new module finds next to none.

    Args:
        channels (int): Channels inside.

    Raises:
        ValueError: If there are no channels.
    """

    def __init__(self, channels: int = 32) -> None:
        if not isinstance(channels, Integral) or channels < 1:
            raise ValueError(f'channels of NoiseEstimator must be an integer of at least 1, got {show(channels)}.')
        layers: list[nn.Module] = []
        for inside, outside in pairwise((3, channels, channels, channels, channels, 3)):
            convolution = nn.Conv2d(inside, outside, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity='relu')
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])
        with torch.no_grad():
            self[-1].weight.mul_(0.01)

    def score(self, u: Tensor, border: int = 0) -> Tensor:
        """Say how noisy images are.

        Args:
            u (Tensor): Images of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.
            border (int): Pixels along every side that are seen but not counted.

        Returns:
            Tensor: Mean |theta| of each image, shape (N,), at least 0.
        """
        inside = slice(border, -border or None)
        theta = self(u)[..., inside, inside]
        # A mean over all pixels: float32 even where autocast made theta half.
        return theta.abs().mean(dim=(1, 2, 3), dtype=torch.promote_types(theta.dtype, torch.float32))
