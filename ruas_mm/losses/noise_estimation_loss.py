"""Supervision of the noise estimator, which the paper leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ruas_mm.losses.synthetic_noise import SyntheticNoiseLoss


class NoiseEstimationLoss(SyntheticNoiseLoss):
    """Has the noise estimator find noise that was added to scene features (our choice, METHOD §5).

    What it has to tell of synthetic noise, pixel by pixel, is ``target``:

    * ``noise``: the noise itself, with its sign, by the mean squared error. The score then is the noise's mean absolute
      value, or somewhat less, since a guess in doubt is a small one. That is how the authors' own weights behave (see
      :class:`ruas_mm.NoiseEstimator`), so that one threshold serves both. But such a guess follows fine texture too.
    * ``level``: the noise's expected absolute value, which is smooth where the noise is not, by the mean absolute
      error: in doubt there is none. The score is in the same units, nearly 0 without noise, and tells weak noise from
      texture better; its threshold is lower.

    Args:
        target (str): ``noise`` or ``level``.
        **options: Those of :class:`SyntheticNoiseLoss`.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(self, target: str = 'noise', **options: Any) -> None:
        if target not in ('noise', 'level'):
            raise ValueError(f"NoiseEstimationLoss has no target={target!r}; choose 'noise' or 'level'.")
        super().__init__(**options)
        self.target = target

    def forward(self, estimator: Callable[[Tensor], Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute the loss. No gradient reaches ``u``.

        Args:
            estimator (Callable): The noise estimator.
            u (Tensor): Scene features u^K of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            dict[str, Tensor]: Weighted scalar ``loss_noise_estimate``.
        """
        clean, noisy, level = self.synthetic_noise(u)
        theta = estimator(noisy)
        # Of the noise, what remains of it after the values are cut off at 0 and 1.
        loss = F.l1_loss(theta, level) if self.target == 'level' else F.mse_loss(theta, noisy - clean)
        return {'loss_noise_estimate': self.weight * loss}
