"""Unsupervised and self-supervised losses of the noise removal module; they need no ground truth."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ruas_mm.losses.synthetic_noise import SyntheticNoiseLoss


def total_variation(x: Tensor) -> Tensor:
    """Return twice the mean squared difference of vertical neighbours plus that of horizontal ones (METHOD §6).

    Args:
        x (Tensor): Images of shape (N, C, H, W), any size from 1x1.

    Returns:
        Tensor: Scalar; 0 for images of 1x1, which have no neighbours.
    """
    return sum((2 * d.square().mean() for d in (x.diff(dim=-2), x.diff(dim=-1)) if d.numel()), start=0 * x.sum())


class DenoisingLoss(nn.Module):
    """Fidelity to the scene feature plus smoothness of the result (authors' release, METHOD §6).

    With the weights of the release, smoothness dominates almost completely. They are meant for short trainings, which
    end long before the images become flat.

    Args:
        fidelity_weight (float): Weight of mean((x - u)^2).
        smooth_weight (float): Weight of the total variation of x, see :func:`total_variation`.
    """

    def __init__(self, fidelity_weight: float = 1e-7, smooth_weight: float = 1.0) -> None:
        super().__init__()
        self.fidelity_weight = fidelity_weight
        self.smooth_weight = smooth_weight

    def forward(self, removal: Callable[[Tensor], Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute both terms.

        Args:
            removal (Callable): The noise removal module; its result x may be outside [0, 1].
            u (Tensor): Scene features u^K of shape (N, 3, H, W), RGB in [0, 1].

        Returns:
            dict[str, Tensor]: Weighted scalars ``loss_denoise_fidelity`` and ``loss_denoise_smooth``.
        """
        x = removal(u)
        return {
            'loss_denoise_fidelity': self.fidelity_weight * F.mse_loss(x, u),
            'loss_denoise_smooth': self.smooth_weight * total_variation(x),
        }


class SyntheticDenoisingLoss(SyntheticNoiseLoss):
    """Mean absolute error after removing noise that was added synthetically (not from the paper).

    Unlike with :class:`DenoisingLoss`, images do not become flat, even in long trainings. No gradient flows to the
    scene module.

    The arguments are those of :class:`SyntheticNoiseLoss`.
    """

    def forward(self, removal: Callable[[Tensor], Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute the loss. No gradient flows to ``u``.

        Args:
            removal (Callable): The noise removal module.
            u (Tensor): Scene features u^K of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            dict[str, Tensor]: Weighted scalar ``loss_denoise_synthetic``.
        """
        clean, noisy, _ = self.synthetic_noise(u)
        return {'loss_denoise_synthetic': self.weight * F.l1_loss(removal(noisy), clean)}
