"""Supervision of the noise estimator, which the paper leaves open."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ruas_mm.losses.synthetic_noise import SyntheticNoiseLoss


class NoiseEstimationLoss(SyntheticNoiseLoss):
    """Has the noise estimator find noise that was added to scene features (our choice, METHOD §5).

    The estimator has to tell synthetic noise, pixel by pixel: the loss is the mean squared error. Its score then is in
    the units of u^K: the noise's mean absolute value, or somewhat less, since a guess in doubt is a small one. That is
    how the authors' own weights behave (see :class:`ruas_mm.NoiseEstimator`), so that one threshold serves both. The
    target is what remains of the noise after the values are cut off at 0 and 1.

    Its options are those of :class:`SyntheticNoiseLoss`.
    """

    def forward(self, estimator: Callable[[Tensor], Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute the loss. No gradient reaches ``u``.

        Args:
            estimator (Callable): The noise estimator.
            u (Tensor): Scene features u^K of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            dict[str, Tensor]: Weighted scalar ``loss_noise_estimate``.
        """
        clean, noisy = self.synthetic_noise(u)
        return {'loss_noise_estimate': self.weight * F.mse_loss(estimator(noisy), noisy - clean)}
