"""The candidate operations of Table I and the two search spaces built from them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Operation:
    """What a candidate is: one convolution, or the identity where ``kernel`` is 0.

    Attributes:
        kernel (int): Side of the kernel in taps; 0 for the skip connection.
        dilation (int): Distance of the taps in pixels.
        residual (bool): Whether the input is added to the output.
    """

    kernel: int
    dilation: int = 1
    residual: bool = False

    @property
    def support(self) -> int:
        """Side in pixels of the window that the operation sees."""
        return self.dilation * (max(self.kernel, 1) - 1) + 1

    @property
    def adds_input(self) -> bool:
        """Whether the identity is part of the operation."""
        return self.residual or self.kernel == 0

    @property
    def short_name(self) -> str:
        """Notation of Table I: ``SC``, ``3-C``, ``3-RC``, ``3-2-DC`` or ``3-2-RDC``."""
        if self.kernel == 0:
            return 'SC'
        dilated = self.dilation > 1
        taps = f'{self.kernel}-{self.dilation}' if dilated else f'{self.kernel}'
        return f'{taps}-{"R" * self.residual}{"D" * dilated}C'


OPERATIONS: dict[str, Operation] = {
    'skip': Operation(0),
    'conv_1x1': Operation(1),
    'conv_3x3': Operation(3),
    'conv_5x5': Operation(5),
    'conv_7x7': Operation(7),
    'res_conv_1x1': Operation(1, residual=True),
    'res_conv_3x3': Operation(3, residual=True),
    'dil_conv_3x3_d2': Operation(3, 2),
    'dil_conv_5x5_d2': Operation(5, 2),
    'dil_conv_7x7_d2': Operation(7, 2),
    'dil_conv_3x3_d6': Operation(3, 6),
    'dil_conv_3x3_d12': Operation(3, 12),
    'dil_conv_3x3_d18': Operation(3, 18),
    'res_dil_conv_3x3_d2': Operation(3, 2, residual=True),
}

SCENE_SPACE: tuple[str, ...] = (
    'skip',
    'conv_1x1',
    'conv_3x3',
    'res_conv_1x1',
    'res_conv_3x3',
    'dil_conv_3x3_d2',
    'res_dil_conv_3x3_d2',
)
"""Candidates of the scene module and of the low-level task module (Table I, shaded rows)."""

HIGH_LEVEL_SPACE: tuple[str, ...] = (
    'conv_1x1',
    'conv_3x3',
    'conv_5x5',
    'conv_7x7',
    'dil_conv_3x3_d2',
    'dil_conv_5x5_d2',
    'dil_conv_7x7_d2',
    'dil_conv_3x3_d6',
    'dil_conv_3x3_d12',
    'dil_conv_3x3_d18',
)
"""Candidates of the high-level task modules (Table I, all but residual operations and skip)."""


class Skip(nn.Module):
    """The skip connection, called as every operation is."""

    def forward(self, x: Tensor, probs: None = None) -> Tensor:
        """Return ``x``."""
        return x


class CandidateConv(nn.Conv2d):
    """One convolution of Table I: bias, same padding, no normalisation and no activation inside.

    Args:
        operation (Operation): What to build.
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the slot.
    """

    def __init__(self, operation: Operation, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            in_channels,
            out_channels,
            operation.kernel,
            stride=stride,
            padding=operation.support // 2,
            dilation=operation.dilation,
        )
        self.residual = operation.residual

    def forward(self, x: Tensor, probs: None = None) -> Tensor:
        """Apply the convolution.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            probs (None): Nothing to mix here; taken so that a slot is called alike in both forms.

        Returns:
            Tensor: Output of shape (N, C', ceil(H / stride), ceil(W / stride)).
        """
        y = super().forward(x)
        return x + y if self.residual else y


def build_operation(name: str, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Build one candidate by its name.

    Args:
        name (str): A key of ``OPERATIONS``.
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the slot.

    Returns:
        nn.Module: Called as ``operation(x, probs)``, ``probs`` being ignored.

    Raises:
        ValueError: If the name is unknown, or the operation adds its input to an output of another shape.
    """
    if name not in OPERATIONS:
        raise ValueError(f'Unknown operation {name!r}; the known ones are {", ".join(OPERATIONS)}.')
    operation = OPERATIONS[name]
    if operation.adds_input and (in_channels != out_channels or stride != 1):
        raise ValueError(
            f'Operation {name!r} adds its input to its output, so it needs equal channels and stride 1, '
            f'not {in_channels} -> {out_channels} channels with stride {stride}.'
        )
    return CandidateConv(operation, in_channels, out_channels, stride) if operation.kernel else Skip()
