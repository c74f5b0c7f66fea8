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


class DrawnCandidate(NamedTuple):
    """The one candidate of a slot that runs, where a search draws candidates instead of mixing them.

    Attributes:
        index (int): Which candidate.
        weight (Tensor, optional): A scalar of value 1 that carries the output's gradient to the architecture
            parameters; None where they take none.
    """

    index: int
    weight: Tensor | None = None


class MixedOp(nn.Module):
    """Sum of all candidates of a slot, each weighted by its probability, or one of them alone.

    Every candidate is linear in its input, so the weighted sum is itself a convolution. The merged form adds the
    kernels, zero-padded to a common support with the identity included, and runs one convolution for each group of
    candidates: one for the scene space, one for each large dilation of the high-level space. It equals the plain form
    up to rounding (METHOD §4; the relaxation is that of §4.2 of the paper).

    A :class:`DrawnCandidate` in the place of the probabilities runs that candidate as one convolution, in either form.

    Args:
        candidates (Sequence[str]): Names of the candidates, keys of ``OPERATIONS``.
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the slot.
        merged (bool): Whether to add the kernels before the convolution; False runs every candidate by itself.
        normalise (bool): Whether to bring the kernel of each candidate, the identity included, to unit norm per output
            channel, times a scale that all candidates share and learn. Otherwise the size of a candidate's weights
            can make up for its probability, and the architecture parameters decide little. Defaults to False.

    Attributes:
        slot (str): Name of the slot that it belongs to, as in genotypes; empty if it belongs to none.

    Raises:
        ValueError: If a candidate is unknown, or adds its input to an output of another shape.
    """

    slot = ''

    def __init__(
        self,
        candidates: Sequence[str],
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        merged: bool = True,
        normalise: bool = False,
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
        self.scale = nn.Parameter(torch.ones(out_channels)) if normalise else None
        self.reset_scale()

    @torch.no_grad()
    def reset_scale(self) -> None:
        """Set the shared scale to the mean norm of the candidates' kernels; call it after initialising those anew."""
        if self.scale is not None:
            norms = [_norm(self._whole_kernel(index)) for index in range(len(self.candidates))]
            self.scale.copy_(torch.stack(norms).mean(dim=0))

    def forward(self, x: Tensor, probs: Tensor | DrawnCandidate) -> Tensor:
        """Mix the candidates, or run one.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            probs (Tensor | DrawnCandidate): Weight of each candidate, shape (number of candidates,); or the candidate
                to run.

        Returns:
            Tensor: Output of shape (N, C', ceil(H / stride), ceil(W / stride)).

        Raises:
            ValueError: If there is not one probability a candidate.
        """
        if isinstance(probs, DrawnCandidate):
            kernel = self.drawn_kernel(probs)
            if kernel is not None:
                return kernel.convolve(x, self.stride)
            return x if probs.weight is None else probs.weight * x
        if self.merged:
            return reduce(torch.add, (kernel.convolve(x, self.stride) for kernel in self.kernels(probs)))
        self._check(probs)
        if self.scale is None:
            return sum(p * operation(x) for p, operation in zip(probs, self.operations, strict=True))
        return sum(p * self._normalised(index).convolve(x, self.stride) for index, p in enumerate(probs))

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

    def drawn_kernel(self, drawn: DrawnCandidate) -> Kernel | None:
        """Return one candidate, the identity of residual operations included, as a convolution.

        Args:
            drawn (DrawnCandidate): Which one, and what its output is multiplied by.

        Returns:
            Kernel | None: The convolution, with the slot's stride; None for a skip connection, which needs none unless
            it is normalised.
        """
        index, weight = drawn
        shape = OPERATIONS[self.candidates[index]]
        if self.scale is not None:
            kernel = self._normalised(index)
        elif shape.kernel:
            kernel = Kernel(self._whole_kernel(index), self.operations[index].bias, shape.dilation)
        else:
            return None
        # The kernel is linear in the candidate, and smaller than its output.
        return kernel if weight is None else Kernel(weight * kernel.weight, weight * kernel.bias, kernel.dilation)

    def _merge(self, shapes: list[list[int]], dilation: int, probs: Sequence[Tensor]) -> Kernel:
        """Add the kernels and biases of one group, from the smallest outwards; taps are ``dilation`` pixels apart."""
        weight = probs[0].new_zeros(self.out_channels, self.in_channels, 1, 1)
        bias = probs[0].new_zeros(self.out_channels)
        identity = []
        for indices in shapes:
            shape = OPERATIONS[self.candidates[indices[0]]]
            if self.scale is not None:
                kernels = [self._normalised(index) for index in indices]
                taps = sum(probs[index] * kernel.weight for index, kernel in zip(indices, kernels, strict=True))
                bias = bias + sum(probs[index] * kernel.bias for index, kernel in zip(indices, kernels, strict=True))
            else:
                identity += [probs[index] for index in indices if OPERATIONS[self.candidates[index]].adds_input]
                if not shape.kernel:
                    continue
                taps = sum(probs[index] * self.operations[index].weight for index in indices)
                bias = bias + sum(probs[index] * self.operations[index].bias for index in indices)
            taps = _spread(taps, shape.dilation // dilation)
            weight = F.pad(weight, [(taps.shape[-1] - weight.shape[-1]) // 2] * 4) + taps
        if identity:
            centre = weight.shape[-1] // 2
            weight[:, :, centre, centre].diagonal().add_(sum(identity))
        return Kernel(weight, bias, dilation)

    def _whole_kernel(self, index: int) -> Tensor:
        """Return the taps of a candidate with the identity, if it adds its input."""
        operation = self.operations[index]
        shape = OPERATIONS[self.candidates[index]]
        if shape.kernel and not shape.residual:
            return operation.weight
        if shape.kernel:
            weight = operation.weight.clone()
        else:
            weight = self.scale.new_zeros(self.out_channels, self.in_channels, 1, 1)
        centre = weight.shape[-1] // 2
        weight[:, :, centre, centre].diagonal().add_(1)
        return weight

    def _normalised(self, index: int) -> Kernel:
        """Return a candidate as a convolution whose kernel has the shared norm."""
        weight, shape = self._whole_kernel(index), OPERATIONS[self.candidates[index]]
        weight = weight * (self.scale / _norm(weight)).view(-1, 1, 1, 1)
        bias = self.operations[index].bias if shape.kernel else self.scale.new_zeros(self.out_channels)
        return Kernel(weight, bias, shape.dilation)

    def _check(self, probs: Tensor) -> None:
        if len(probs) != len(self.candidates):
            raise ValueError(f'MixedOp has {len(self.candidates)} candidates, but got {len(probs)} probabilities.')

    def extra_repr(self) -> str:
        """Describe the slot in one line."""
        return f'{self.in_channels}, {self.out_channels}, stride={self.stride}, merged={self.merged}' + (
            ', normalise=True' if self.scale is not None else ''
        )


def reset_scales(module: nn.Module) -> None:
    """Call :meth:`MixedOp.reset_scale` of all mixed operations in a module.

    Args:
        module (nn.Module): Any module whose weights have been initialised.
    """
    for part in module.modules():
        if isinstance(part, MixedOp):
            part.reset_scale()


def _norm(weight: Tensor) -> Tensor:
    """Return the norm of a kernel per output channel, not below what a division can bear."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp_min(torch.finfo(weight.dtype).eps)


def _spread(taps: Tensor, step: int) -> Tensor:
    """Move the taps of a kernel ``step`` places apart, zeros between them."""
    side = taps.shape[-1]
    if side == 1 or step == 1:
        return taps
    weight = taps.new_zeros(*taps.shape[:2], step * (side - 1) + 1, step * (side - 1) + 1)
    weight[:, :, ::step, ::step] = taps
    return weight
