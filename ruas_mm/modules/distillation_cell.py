"""The feature-distillation cell, the building block of the scene module and the noise removal module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruas_mm.search import SCENE_SPACE, DrawnCandidate, GenotypeLike, MixedOp, SearchSlots, reset_scales
from ruas_mm.search.mixed_op import Kernel
from ruas_mm.search.operations import CandidateConv


def cell_slots(prefix: str, genotype: GenotypeLike = None, normalise: bool = False) -> SearchSlots:
    """Return the seven slots of a cell, to be shared by all cells that use one architecture.

    Args:
        prefix (str): ``scene`` or ``noise_removal``.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None keeps it searchable.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.

    Returns:
        SearchSlots: Slots o1 … o7 of METHOD §3.
    """
    edges = {
        'distill_1': ('in', 'out'),
        'remain_1': ('in', 'r1'),
        'distill_2': ('r1', 'out'),
        'remain_2': ('r1', 'r2'),
        'distill_3': ('r2', 'out'),
        'remain_3': ('r2', 'r3'),
        'last': ('r3', 'out'),
    }
    return SearchSlots(prefix, tuple(edges), SCENE_SPACE, genotype, tuple(edges.values()), normalise)


class DistillationCell(nn.Module):
    """A cell of five nodes and seven searchable edges, in which every node also feeds the last (paper §4.1, METHOD §3).

    The cell contains only weights. The architecture parameters belong to ``slots``, which several cells can share; the
    caller passes ``slots.probs()`` so that the softmax is computed once for all cells.

    The two edges that leave a node have the same input. If both are convolutions with the same geometry, which is the
    case for merged mixed operations unless they run a drawn candidate, their kernels are stacked (after adding the
    identity to the kernel of the remaining branch), so that each node runs a single convolution.

    Attributes:
        cpu_layout (torch.memory_format): Memory format of the convolutions on the CPU. With so few channels, the
            backward pass is several times slower in ``torch.contiguous_format``, the default memory format.

    Args:
        slots (SearchSlots): The seven slots; see :func:`cell_slots`.
        channels (int): Channels of input, nodes and output.
    """

    def __init__(self, slots: SearchSlots, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(slots.build(index, channels, channels) for index in range(len(slots.names)))
        self.fuse = nn.Conv2d(4 * channels, channels, 1)
        self.cpu_layout = torch.channels_last

    @torch.no_grad()
    def start_from(self, slope: float, offset: float) -> None:
        """Initialise the cell close to ``slope * x + offset`` for x >= 0, for every architecture.

        Every edge is initialised close to the identity, so that no candidate has an advantage when a search begins. The
        remaining random part of the weights breaks the symmetry.

        Args:
            slope (float): Initial slope of the output with respect to the input of the same channel.
            offset (float): Initial output for an input of 0.
        """
        for convolution in self.operations.modules():
            if isinstance(convolution, CandidateConv):
                convolution.weight.mul_(0.03)
                convolution.bias.zero_()
                if not convolution.residual:
                    centre = convolution.kernel_size[0] // 2
                    convolution.weight[:, :, centre, centre].diagonal().add_(1)
        reset_scales(self)
        channels = self.fuse.out_channels
        self.fuse.weight.mul_(0.03)
        self.fuse.weight[:, :channels, 0, 0].diagonal().add_(slope)  # the first node, which the input feeds
        self.fuse.bias.fill_(offset)

    def forward(self, x: Tensor, probs: Sequence[Tensor | DrawnCandidate | None]) -> Tensor:
        """Run the cell.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            probs (Sequence[Tensor | DrawnCandidate | None]): Result of ``slots.probs()``.

        Returns:
            Tensor: Output of shape (N, C, H, W), without activation.
        """
        if x.device.type == 'cpu':
            x = x.contiguous(memory_format=self.cpu_layout)
        distilled = []
        for index in (0, 2, 4):
            node, x = self._node(index, x, probs)
            distilled.append(node)
        distilled.append(activate(self.operations[6](x, probs[6]), x))
        return self._fuse(distilled)

    def _node(self, index: int, x: Tensor, probs: Sequence[Tensor | DrawnCandidate | None]) -> tuple[Tensor, Tensor]:
        """Run the two edges that leave a node; return the distilled and the remaining features."""
        distill, remain = self.operations[index : index + 2]
        both = _stack(edge_kernel(distill, probs[index]), edge_kernel(remain, probs[index + 1]))
        if both is None:
            return activate(distill(x, probs[index]), x), activate(remain(x, probs[index + 1]) + x, x)
        return activate(both.convolve(x), x).chunk(2, dim=1)

    def _fuse(self, nodes: Sequence[Tensor]) -> Tensor:
        """Run the last convolution, which is 1x1, node by node, to avoid concatenating and copying the nodes."""
        n, _, h, w = nodes[0].shape
        weights = self.fuse.weight.flatten(1).chunk(len(nodes), dim=1)
        parts = (weight @ node.movedim(1, 0).flatten(1) for weight, node in zip(weights, nodes, strict=True))
        # The sum starts with the bias, whose precision it keeps if autocast has made the parts half precision.
        return sum(parts, start=self.fuse.bias.view(-1, 1)).view(self.fuse.out_channels, n, h, w).movedim(0, 1)


def edge_kernel(operation: nn.Module, probs: Tensor | DrawnCandidate | None) -> Kernel | None:
    """Return an edge as a single convolution, or None for skip connections and mixed operations that are not merged."""
    if isinstance(probs, DrawnCandidate):
        return operation.drawn_kernel(probs)
    if isinstance(operation, MixedOp):
        kernels = operation.kernels(probs) if operation.merged else []
        return kernels[0] if len(kernels) == 1 else None  # there is one kernel in the scene space
    if not isinstance(operation, CandidateConv):
        return None
    kernel = Kernel(operation.weight, operation.bias, operation.dilation[0])
    return add_identity(kernel) if operation.residual else kernel


def _stack(distill: Kernel | None, remain: Kernel | None) -> Kernel | None:
    """Return the convolution that runs both edges of a node, the remaining branch with its input added.

    Returns None where this would be slower: making a dilated kernel dense costs more than a second convolution.
    """
    if distill is None or remain is None:
        return None
    sides = [kernel.weight.shape[-1] for kernel in (distill, remain)]
    if min(sides) > 1 and distill.dilation != remain.dilation:
        return None
    weights = [
        F.pad(kernel.weight, [(max(sides) - side) // 2] * 4)
        for kernel, side in zip((distill, add_identity(remain)), sides, strict=True)
    ]
    bias = torch.cat([distill.bias, remain.bias])
    return Kernel(torch.cat(weights), bias, max(distill.dilation, remain.dilation))


def add_identity(kernel: Kernel) -> Kernel:
    """Return the kernel whose convolution gives the same output plus its input."""
    weight = kernel.weight.clone()
    centre = weight.shape[-1] // 2
    weight[:, :, centre, centre].diagonal().add_(1)
    return kernel._replace(weight=weight)


def activate(y: Tensor, x: Tensor) -> Tensor:
    """Activate the output of an edge, in place unless the edge returned its input ``x``."""
    return F.leaky_relu(y, 0.05, inplace=y is not x)
