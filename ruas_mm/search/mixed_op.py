"""The mixed operation: all candidates of a slot, weighted by their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ruas_mm.search.operations import OPERATIONS, build_operation

# A dilated kernel up to this support joins the dense group: 3x3 taps two pixels apart fit a 5x5 kernel, whose extra
# zeros cost less than another pass over the image.
_DENSE_SUPPORT = 5


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
        # dilation of the merged kernel -> indices of the candidates that it takes in
        self._groups: dict[int, list[int]] = {}
        for index, name in enumerate(self.candidates):
            operation = OPERATIONS[name]
            dilation = 1 if operation.support <= _DENSE_SUPPORT else operation.dilation
            self._groups.setdefault(dilation, []).append(index)

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
        if len(probs) != len(self.candidates):
            raise ValueError(f'MixedOp has {len(self.candidates)} candidates, but got {len(probs)} probabilities.')
        if not self.merged:
            return sum(p * operation(x) for p, operation in zip(probs, self.operations, strict=True))
        output = None
        for dilation, indices in self._groups.items():
            weight, bias = self._merge(indices, dilation, probs)
            padding = dilation * (weight.shape[-1] // 2)
            y = F.conv2d(x, weight, bias, self.stride, padding, dilation)
            output = y if output is None else output + y
        return output

    def _merge(self, indices: list[int], dilation: int, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Add the kernels and biases of one group; kernel taps are ``dilation`` pixels apart."""
        operations = [OPERATIONS[self.candidates[index]] for index in indices]
        radius = max(operation.support // 2 for operation in operations) // dilation
        side = 2 * radius + 1
        weight = probs.new_zeros(self.out_channels, self.in_channels, side, side)
        bias = probs.new_zeros(self.out_channels)
        for index, operation in zip(indices, operations, strict=True):
            p = probs[index]
            if operation.kernel:
                reach = operation.support // 2 // dilation
                taps = slice(radius - reach, radius + reach + 1, operation.dilation // dilation)
                convolution = self.operations[index]
                weight[:, :, taps, taps] += p * convolution.weight
                bias += p * convolution.bias
            if operation.adds_input:
                weight[:, :, radius, radius].diagonal().add_(p)
        return weight, bias

    def extra_repr(self) -> str:
        """Describe the slot in one line."""
        return f'{self.in_channels}, {self.out_channels}, stride={self.stride}, merged={self.merged}'
