"""Derived modules folded for inference on the CPU: fewer and fuller convolutions, the same results."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruas_mm.modules.distillation_cell import DistillationCell, activate, add_identity, edge_kernel
from ruas_mm.modules.noise_estimator import NoiseEstimator
from ruas_mm.modules.noise_removal import NoiseRemoval
from ruas_mm.modules.scene_module import SceneModule
from ruas_mm.search.mixed_op import Kernel

# Exactly these classes: a derived one may compute something else.
_PARTS = (SceneModule, NoiseRemoval, NoiseEstimator)

# Most neighbours that one packed convolution computes, and most output channels that it has: as measured, one vector
# register with AVX-512, three of AVX2's.
_PIXELS = 4
_CHANNELS = 24 if torch.backends.cpu.get_cpu_capability() == 'AVX2' else 16


def fold(module: nn.Module, packed: bool = True) -> nn.Module:
    """Return a copy for inference that computes the same faster, up to rounding.

    Distillation cells and convolutions are merged as far as they are linear, with weights that are computed once; see
    :class:`PackedConv` and :class:`FoldedCell`. The copy does not follow later changes of the original's weights. It
    is made for the CPU; it runs anywhere. NaN in an image spreads to a few pixels more.

    Args:
        module (nn.Module): A :class:`SceneModule`, :class:`NoiseRemoval` or :class:`NoiseEstimator`, or any module
            that contains some, such as :class:`ruas_mm.RUAS` or a detector. It is left untouched.
        packed (bool): Whether convolutions compute several pixels at once. False leaves ordinary convolutions in the
            layout of the image, for exporters.

    Returns:
        nn.Module: The copy, in evaluation mode; its parameters require no gradient.

    Raises:
        ValueError: If an architecture is still searchable, or there is nothing to fold.
    """
    parts = [part for part in module.modules() if type(part) in _PARTS]
    if not parts:
        raise ValueError(f'{type(module).__name__} holds no SceneModule, NoiseRemoval or NoiseEstimator to fold.')
    for part in parts:
        if not isinstance(part, NoiseEstimator) and part.slots.searchable:
            raise ValueError(f'{type(part).__name__} is still searchable; build it with a genotype to fold it.')
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for part in [part for part in folded.modules() if type(part) in _PARTS]:
        _fold_children(part, packed)
        if packed:
            part.register_forward_pre_hook(_channels_last)
    return folded


class PackedConv(nn.Module):
    """A convolution with same padding and few output channels that computes several pixels at once.

    The CPU's convolutions put output channels into vector registers, where 3 or 6 of them leave most lanes empty. But
    in the channels-last layout a row of W pixels with C channels is, number by number, also a row of W/s pixels with
    s C channels. So one convolution of stride s, whose kernel holds s copies of ours, each one pixel further right,
    computes s neighbours and fills the lanes.

    Args:
        kernel (Kernel): The convolution.
        packed (bool): False computes one pixel at a time, as usual.
    """

    def __init__(self, kernel: Kernel, packed: bool = True) -> None:
        super().__init__()
        weight, bias, dilation = kernel
        outside, inside, side, _ = weight.shape
        reach = dilation * (side - 1)
        self.pixels = next((n for n in (_PIXELS, _PIXELS // 2) if packed and n * outside <= _CHANNELS), 1)
        self.padding = reach // 2
        self.dilation = (dilation, dilation)
        if self.pixels > 1:
            copies = weight.new_zeros(self.pixels, outside, inside, side, reach + self.pixels)
            for pixel in range(self.pixels):
                copies[pixel, ..., pixel : pixel + reach + 1 : dilation] = weight
            weight, bias = copies.flatten(0, 1), bias.repeat(self.pixels)
            self.dilation = (dilation, 1)
        self.register_buffer('weight', weight.detach())
        self.register_buffer('bias', bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Run the convolution.

        Args:
            x (Tensor): Input of shape (N, C, H, W).

        Returns:
            Tensor: Output of shape (N, C', H, W).
        """
        if self.pixels == 1:
            return F.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation)
        width = x.shape[-1]
        if width % self.pixels:
            x = F.pad(x, (0, -width % self.pixels))
        y = F.conv2d(x, self.weight, self.bias, (1, self.pixels), self.padding, self.dilation)
        n, channels, height, _ = y.shape
        y = y.permute(0, 2, 3, 1).reshape(n, height, -1, channels // self.pixels).permute(0, 3, 1, 2)
        return y[..., :width]


class FoldedCell(nn.Module):
    """A derived distillation cell as one :class:`PackedConv` an edge, residual included, none for a skip connection.

    The last convolution, 1x1 over the four nodes, runs node by node: no copy of them all is made. (Where no packing
    is, as on a GPU, one convolution for both edges that leave a node, as :class:`DistillationCell` has it, is as good.)

    Args:
        cell (DistillationCell): The cell.
        packed (bool): Whether the convolutions are packed.
    """

    def __init__(self, cell: DistillationCell, packed: bool = True) -> None:
        super().__init__()
        self.packed = packed
        kernels = [edge_kernel(operation, None) for operation in cell.operations]
        self.distill = nn.ModuleList(
            nn.Identity() if kernels[index] is None else PackedConv(kernels[index], packed) for index in (0, 2, 4, 6)
        )
        self.remain = nn.ModuleList(
            _Double() if kernels[index] is None else PackedConv(add_identity(kernels[index]), packed)
            for index in (1, 3, 5)
        )
        bias = cell.fuse.bias
        self.fuse = nn.ModuleList(
            PackedConv(Kernel(weight, torch.zeros_like(bias) if index else bias), packed)
            for index, weight in enumerate(cell.fuse.weight.chunk(4, dim=1))
        )

    def forward(self, x: Tensor, probs: Any = None) -> Tensor:
        """Run the cell.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            probs (Any): Nothing to mix here; taken so that both forms of a cell are called alike.

        Returns:
            Tensor: Output of shape (N, C, H, W), without activation.
        """
        width = x.shape[-1]
        ragged = self.packed and width % _PIXELS > 0
        if ragged:  # once here instead of once a convolution
            x = F.pad(x, (0, -width % _PIXELS))
        out = self.fuse[0](activate(self.distill[0](x), x))
        for remain, distill, fuse in zip(self.remain, self.distill[1:], self.fuse[1:], strict=True):
            x = activate(remain(x), x)
            if ragged:
                x[..., width:] = 0  # beyond the border is nothing
            out = out + fuse(activate(distill(x), x))
        return out[..., :width] if ragged else out


class _Double(nn.Module):
    """What remains of a skip connection: its input, added to itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x


def _fold_children(module: nn.Module, packed: bool) -> None:
    for name, child in module.named_children():
        if isinstance(child, DistillationCell):
            setattr(module, name, FoldedCell(child, packed))
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, PackedConv(Kernel(child.weight, child.bias), packed))
        else:
            _fold_children(child, packed)


def _channels_last(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lay the image out once, so that nothing inside has to."""
    return args[0].contiguous(memory_format=torch.channels_last), *args[1:]
