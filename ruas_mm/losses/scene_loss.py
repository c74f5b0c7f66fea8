"""Unsupervised losses of the scene module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RTVLoss(nn.Module):
    """Relative total variation (Xu et al., "Structure extraction from texture via relative total variation", 2012).

    For both directions, the sum over pixels p of D(p) / (L(p) + eps) with D(p) = sum_q g(p, q) |d t(q)| and
    L(p) = |sum_q g(p, q) d t(q)|, which are the windowed total variation and the windowed inherent variation; g is a
    Gaussian window and d the forward difference. The ratio is small at structures and large in textured regions.

    Args:
        sigma (float): Standard deviation of the window in pixels; the window is truncated at 2.5 sigma.
        eps (float): Constant that keeps the ratio finite in flat areas.
        reduction (str): ``sum`` sums over pixels and channels and averages over the batch, as in the paper; ``mean``
            averages over all of them.

    Raises:
        ValueError: If the reduction is unknown.
    """

    def __init__(self, sigma: float = 3.0, eps: float = 1e-3, reduction: str = 'mean') -> None:
        super().__init__()
        if reduction not in ('mean', 'sum'):
            raise ValueError(f"reduction of RTVLoss must be 'mean' or 'sum', got {reduction!r}.")
        self.eps = eps
        self.reduction = reduction
        radius = max(1, int(2.5 * sigma))
        window = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64).square() / (2 * sigma**2))
        self.register_buffer('window', window / window.sum(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            t (Tensor): Maps of shape (N, C, H, W).

        Returns:
            Tensor: Scalar loss.
        """
        # The terms of L cancel, so its gradient would be wrong by 10 % in half precision.
        with torch.autocast(t.device.type, enabled=False):
            return self._loss(t.to(torch.promote_types(t.dtype, torch.float32)))

    def _loss(self, t: Tensor) -> Tensor:
        ratio = self._ratio(t.diff(dim=-1, append=t[..., :, -1:])) + self._ratio(t.diff(dim=-2, append=t[..., -1:, :]))
        return ratio.sum() / len(t) if self.reduction == 'sum' else ratio.mean()

    def _ratio(self, gradient: Tensor) -> Tensor:
        return self._smooth(gradient.abs()) / (self._smooth(gradient).abs() + self.eps)

    def _smooth(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        window, radius = self.window.to(x.dtype), len(self.window) // 2
        x = F.conv2d(x.reshape(n * c, 1, h, w), window.view(1, 1, 1, -1), padding=(0, radius))
        return F.conv2d(x, window.view(1, 1, -1, 1), padding=(radius, 0)).view(n, c, h, w)


class NeighbourhoodSmoothLoss(nn.Module):
    """Smoothness over the 24 neighbours in a 5x5 block, weighted lower across colour edges (authors' release).

    The loss is the sum over the offsets of mean(w |t(p) - t(p + offset)|) with
    w = exp(-sharpness ||y(p) - y(p + offset)||^2), where colours are compared in YCbCr and the mean is over all pixels
    whose neighbour is inside the image. The weights are constants: no gradient flows through them to the image.

    Args:
        radius (int): Radius of the neighbourhood in pixels; 2 gives the 5x5 block.
        sharpness (float): Factor of the squared colour distance. For images in [0, 1], w is close to 1 with the
            release's 0.005.
    """

    def __init__(self, radius: int = 2, sharpness: float = 0.005) -> None:
        super().__init__()
        self.sharpness = sharpness
        # An offset and its opposite compare the same pairs, so half of the offsets are used and counted twice.
        self.offsets = [(dy, dx) for dy in range(radius + 1) for dx in range(-radius, radius + 1) if (dy, dx) > (0, 0)]
        ycbcr = torch.tensor(  # ITU-R BT.601, studio range
            [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=torch.float64
        )
        self.register_buffer('ycbcr', ycbcr / 255, persistent=False)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            t (Tensor): Maps of shape (N, C, H, W).
            y (Tensor): The corresponding images, RGB in [0, 1], shape (N, 3, H, W).

        Returns:
            Tensor: Scalar loss.
        """
        t = t.to(torch.promote_types(t.dtype, torch.float32), memory_format=torch.contiguous_format)
        with torch.no_grad():
            colour = torch.einsum('ij,njhw->nihw', self.ycbcr.to(t.dtype), y.to(t.dtype)).contiguous()
        return _WeightedVariation.apply(t, colour, self.offsets, self.sharpness)


class _WeightedVariation(torch.autograd.Function):
    """Sum of weighted absolute differences that computes its gradient during the forward pass.

    Autograd would store the weights and differences of every offset for the backward pass. The gradient is a sum of
    weight times sign over the same offsets, so storing a single map is sufficient.
    """

    @staticmethod
    def forward(ctx: Any, t: Tensor, colour: Tensor, offsets: Sequence[tuple[int, int]], sharpness: float) -> Tensor:
        height, width = t.shape[-2:]
        loss = t.new_zeros(())
        gradient = torch.zeros_like(t) if ctx.needs_input_grad[0] else None
        for dy, dx in offsets:
            if dy >= height or abs(dx) >= width:
                continue  # no pixel has this neighbour
            left, right = max(0, -dx), width - max(0, dx)
            here = (..., slice(0, height - dy), slice(left, right))
            there = (..., slice(dy, height), slice(left + dx, right + dx))
            distance = (colour[here] - colour[there]).square_().sum(dim=1, keepdim=True)
            weight = distance.mul_(-sharpness).exp_()
            difference = t[here] - t[there]
            signed = difference.sign().mul_(weight)
            loss += 2 * difference.mul_(signed).mean()
            if gradient is not None:
                signed *= 2 / signed.numel()
                gradient[here] += signed
                gradient[there] -= signed
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        # The loss is piecewise linear in t, so its gradient is piecewise constant and second derivatives are 0.
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None


class SceneLoss(nn.Module):
    """Loss of the scene module: fidelity of the illumination to the image plus smoothness (paper §3.2, METHOD §6).

    If the illumination t approaches y itself, u tends to 1, so images are overexposed after long trainings. Two options
    that are not in the paper avoid this. ``ambient`` assumes ambient light a everywhere: t is then drawn to
    (y + a) / (1 + a) and u to the curve (1 + a) y / (y + a), which amplifies dark values by up to 1 + 1/a and leaves
    white unchanged. ``window`` replaces y in the fidelity term by its local mean, which preserves smaller details.

    Args:
        smoothness (str): ``neighbourhood`` (authors' release) or ``rtv`` (the paper's loss).
        fidelity_weight (float): Weight of mean((t - y)^2).
        smooth_weight (float): Weight of the smoothness, the paper's eta.
        ambient (float): Ambient light, at least 0. With 0, this is the loss of the paper and the release.
        window (int): Side of the local mean in pixels, an odd number; 1 uses y itself, as paper and release do.

    Raises:
        ValueError: If an argument is invalid.
    """

    def __init__(
        self,
        smoothness: str = 'neighbourhood',
        fidelity_weight: float = 0.5,
        smooth_weight: float = 1.0,
        ambient: float = 0.0,
        window: int = 1,
    ) -> None:
        super().__init__()
        if not ambient >= 0:
            raise ValueError(f'ambient of SceneLoss must be at least 0, got {ambient}.')
        if window < 1 or window % 2 == 0:
            raise ValueError(f'window of SceneLoss must be a positive odd number, got {window}.')
        if smoothness not in ('neighbourhood', 'rtv'):
            raise ValueError(f"smoothness of SceneLoss must be 'neighbourhood' or 'rtv', got {smoothness!r}.")
        self.smooth = NeighbourhoodSmoothLoss() if smoothness == 'neighbourhood' else RTVLoss()
        self.fidelity_weight = fidelity_weight
        self.smooth_weight = smooth_weight
        self.ambient = ambient
        self.window = window

    def forward(self, t: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Compute both terms.

        Args:
            t (Tensor): Illumination t^K of shape (N, 3, H, W).
            y (Tensor): Low-light images, RGB in [0, 1], shape (N, 3, H, W).

        Returns:
            dict[str, Tensor]: Weighted scalars ``loss_scene_fidelity`` and ``loss_scene_smooth``.
        """
        smooth = self.smooth(t) if isinstance(self.smooth, RTVLoss) else self.smooth(t, y)
        light = F.avg_pool2d(y, self.window, 1, self.window // 2, count_include_pad=False) if self.window > 1 else y
        light = (light + self.ambient) / (1 + self.ambient)
        return {
            'loss_scene_fidelity': self.fidelity_weight * F.mse_loss(t, light),
            'loss_scene_smooth': self.smooth_weight * smooth,
        }
