"""The mixed operation: all candidates of a slot, weighted by their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruas_mm.search.operations import OPERATIONS, Operation, build_operation

# A dilated kernel up to this support joins the dense group: 3x3 taps two pixels apart fit a 5x5 kernel, whose extra
# zeros cost less than another pass over the image.
_DENSE_SUPPORT = 5


class Kernel(NamedTuple):
    """What candidates add up to: one convolution with same padding.

    Attributes:
        weight (Tensor): Taps of shape (C', C, side, side), side odd.
        bias (Tensor): Bias of shape (C',).
        dilation (int): Distance of the taps in pixels.
    """

    weight: Tensor
    bias: Tensor
    dilation: int = 1

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        """Run the convolution.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            stride (int): Distance of the outputs in pixels.

        Returns:
            Tensor: Output of shape (N, C', ceil(H / stride), ceil(W / stride)).
        """
        padding = self.dilation * (self.weight.shape[-1] // 2)
        return F.conv2d(x, self.weight, self.bias, stride, padding, self.dilation)


class MixedOp(nn.Module):
    """Sum of all candidates of a slot, each weighted by its probability.

    Every candidate is linear in its input, so the weighted sum is itself a convolution. The merged form adds the
    kernels, zero-padded to a common support with the identity included, and runs one convolution for each group of
    candidates: one for the scene space, one for each large dilation of the high-level space. It equals the plain form
    up to rounding (METHOD §4; the relaxation is that of §4.2 of the paper).

    Args:
        candidates (Sequence[str]): Names of the candidates, keys of ``OPERATIONS``.
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the slot.
        merged (bool): Whether to add the kernels before the convolution; False runs every candidate by itself.

    Raises:
        ValueError: If a candidate is unknown, or adds its input to an output of another shape.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        merged: bool = True,
    ) -> None:
        super().__init__()
        self.candidates = tuple(candidates)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.merged = merged
        self.operations = nn.ModuleList(
            build_operation(name, in_channels, out_channels, stride) for name in self.candidates
        )
        # dilation of the merged kernel -> indices of the candidates that it takes in, those of one shape together and
        # the smallest support first
        groups: dict[int, dict[Operation, list[int]]] = {}
        for index, name in sorted(enumerate(self.candidates), key=lambda item: OPERATIONS[item[1]].support):
            operation = OPERATIONS[name]
            dilation = 1 if operation.support <= _DENSE_SUPPORT else operation.dilation
            groups.setdefault(dilation, {}).setdefault(replace(operation, residual=False), []).append(index)
        self._groups = {dilation: list(shapes.values()) for dilation, shapes in groups.items()}

    def forward(self, x: Tensor, probs: Tensor) -> Tensor:
        """Mix the candidates.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            probs (Tensor): Weight of each candidate, shape (number of candidates,).

        Returns:
            Tensor: Output of shape (N, C', ceil(H / stride), ceil(W / stride)).

        Raises:
            ValueError: If there is not one probability a candidate.
        """
        if self.merged:
            return reduce(torch.add, (kernel.convolve(x, self.stride) for kernel in self.kernels(probs)))
        self._check(probs)
        return sum(p * operation(x) for p, operation in zip(probs, self.operations, strict=True))

    def kernels(self, probs: Tensor) -> list[Kernel]:
        """Add up the candidates.

        Args:
            probs (Tensor): Weight of each candidate, shape (number of candidates,).

        Returns:
            list[Kernel]: One for each group; the sum of their convolutions, with the slot's stride, is the output.

        Raises:
            ValueError: If there is not one probability a candidate.
        """
        self._check(probs)
        return [self._merge(shapes, dilation, probs.unbind()) for dilation, shapes in self._groups.items()]

    def _merge(self, shapes: list[list[int]], dilation: int, probs: Sequence[Tensor]) -> Kernel:
        """Add the kernels and biases of one group, from the smallest outwards; taps are ``dilation`` pixels apart."""
        weight = probs[0].new_zeros(self.out_channels, self.in_channels, 1, 1)
        bias = probs[0].new_zeros(self.out_channels)
        identity = []
        for indices in shapes:
            identity += [probs[index] for index in indices if OPERATIONS[self.candidates[index]].adds_input]
            shape = OPERATIONS[self.candidates[indices[0]]]
            if shape.kernel:
                taps = sum(probs[index] * self.operations[index].weight for index in indices)
                taps = _spread(taps, shape.dilation // dilation)
                weight = F.pad(weight, [(taps.shape[-1] - weight.shape[-1]) // 2] * 4) + taps
                bias = bias + sum(probs[index] * self.operations[index].bias for index in indices)
        if identity:
            centre = weight.shape[-1] // 2
            weight[:, :, centre, centre].diagonal().add_(sum(identity))
        return Kernel(weight, bias, dilation)

    def _check(self, probs: Tensor) -> None:
        if len(probs) != len(self.candidates):
            raise ValueError(f'MixedOp has {len(self.candidates)} candidates, but got {len(probs)} probabilities.')

    def extra_repr(self) -> str:
        """Describe the slot in one line."""
        return f'{self.in_channels}, {self.out_channels}, stride={self.stride}, merged={self.merged}'


def _spread(taps: Tensor, step: int) -> Tensor:
    """Move the taps of a kernel ``step`` places apart, zeros between them."""
    side = taps.shape[-1]
    if side == 1 or step == 1:
        return taps
    weight = taps.new_zeros(*taps.shape[:2], step * (side - 1) + 1, step * (side - 1) + 1)
    weight[:, :, ::step, ::step] = taps
    return weight
