"""Loss of the noise estimator, which the paper does not specify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ruas_mm.losses.synthetic_noise import SyntheticNoiseLoss


class NoiseEstimationLoss(SyntheticNoiseLoss):
    """Error of the noise estimator on scene features with synthetic noise (our choice, METHOD §5).

    ``target`` selects what the estimator predicts for each pixel:

    * ``noise``: the signed noise itself, with the mean squared error. The score is then the mean absolute value of the
      noise, or somewhat less, because uncertain predictions shrink towards 0. The authors' weights behave in the same
      way (see :class:`ruas_mm.NoiseEstimator`), so one threshold works for both. However, such predictions also respond
      to fine texture.
    * ``level``: the expected absolute value of the noise, which unlike the noise is smooth, with the mean absolute
      error, which favours 0 if uncertain. The score has the same units, is close to 0 without noise, and separates weak
      noise from texture better; it needs a lower threshold.

    Args:
        target (str): ``noise`` or ``level``.
        **options: Arguments of :class:`SyntheticNoiseLoss`.

    Raises:
        ValueError: If an argument is invalid.
    """

    def __init__(self, target: str = 'noise', **options: Any) -> None:
        if target not in ('noise', 'level'):
            raise ValueError(f"target of NoiseEstimationLoss must be 'noise' or 'level', got {target!r}.")
        super().__init__(**options)
        self.target = target

    def forward(self, estimator: Callable[[Tensor], Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute the loss. No gradient flows to ``u``.

        Args:
            estimator (Callable): The noise estimator.
            u (Tensor): Scene features u^K of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            dict[str, Tensor]: Weighted scalar ``loss_noise_estimate``.
        """
        clean, noisy, level = self.synthetic_noise(u)
        theta = estimator(noisy)
        # The target is the noise that remains after clipping the noisy image to [0, 1].
        loss = F.l1_loss(theta, level) if self.target == 'level' else F.mse_loss(theta, noisy - clean)
        return {'loss_noise_estimate': self.weight * loss}
