"""Loss of the low-level task: it needs no ground truth."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def total_variation(x: Tensor) -> Tensor:
    """Return twice the mean squared difference of neighbours, vertical and horizontal ones added (METHOD §6).

    Args:
        x (Tensor): Images of shape (N, C, H, W), any size from 1x1.

    Returns:
        Tensor: Scalar; 0 where there are no neighbours.
    """
    return sum((2 * d.square().mean() for d in (x.diff(dim=-2), x.diff(dim=-1)) if d.numel()), start=0 * x.sum())


class DenoisingLoss(nn.Module):
    """Keeps the result near the scene feature and smooth (authors' release, METHOD §6).

    The release's weights leave almost all to the smoothness: they are for a short training, which ends long before the
    images are flat.

    Args:
        fidelity_weight (float): Weight of mean((x - u)^2).
        smooth_weight (float): Weight of the total variation of x, see :func:`total_variation`.
    """

    def __init__(self, fidelity_weight: float = 1e-7, smooth_weight: float = 1.0) -> None:
        super().__init__()
        self.fidelity_weight = fidelity_weight
        self.smooth_weight = smooth_weight

    def forward(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        """Compute both terms.

        Args:
            x (Tensor): Images without their noise, RGB around [0, 1], shape (N, 3, H, W).
            u (Tensor): Scene features u^K that they come from, of the same shape.

        Returns:
            dict[str, Tensor]: Weighted scalars ``loss_denoise_fidelity`` and ``loss_denoise_smooth``.
        """
        return {
            'loss_denoise_fidelity': self.fidelity_weight * F.mse_loss(x, u),
            'loss_denoise_smooth': self.smooth_weight * total_variation(x),
        }
