"""The feature-distillation cell that the scene module and the noise removal module are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruas_mm.search import SCENE_SPACE, GenotypeLike, SearchSlots
from ruas_mm.search.operations import CandidateConv


def cell_slots(prefix: str, genotype: GenotypeLike = None) -> SearchSlots:
    """Return the seven slots of a cell, to be shared by all cells that use one architecture.

    Args:
        prefix (str): ``scene`` or ``noise_removal``.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None keeps it searchable.

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
    return SearchSlots(prefix, tuple(edges), SCENE_SPACE, genotype, tuple(edges.values()))


class DistillationCell(nn.Module):
    """Five nodes, seven searchable edges; every node also feeds the last one (paper §4.1, METHOD §3).

    The cell owns weights only. The architecture belongs to ``slots``, which several cells may share; the caller passes
    ``slots.probs()`` so that the softmax runs once for all of them.

    Args:
        slots (SearchSlots): The seven slots; see :func:`cell_slots`.
        channels (int): Channels of input, nodes and output.
    """

    def __init__(self, slots: SearchSlots, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(slots.build(index, channels, channels) for index in range(len(slots.names)))
        self.fuse = nn.Conv2d(4 * channels, channels, 1)

    @torch.no_grad()
    def start_from(self, slope: float, offset: float) -> None:
        """Make the cell start near ``slope * x + offset`` for x >= 0, whatever its architecture.

        Every edge starts near the identity, so no candidate is ahead of another when a search begins. The noise left
        in the weights breaks their symmetry.

        Args:
            slope (float): What the output starts as, per unit of the input of the same channel.
            offset (float): What it starts as at 0.
        """
        for convolution in self.operations.modules():
            if isinstance(convolution, CandidateConv):
                convolution.weight.mul_(0.03)
                convolution.bias.zero_()
                if not convolution.residual:
                    centre = convolution.kernel_size[0] // 2
                    convolution.weight[:, :, centre, centre].diagonal().add_(1)
        channels = self.fuse.out_channels
        self.fuse.weight.mul_(0.03)
        self.fuse.weight[:, :channels, 0, 0].diagonal().add_(slope)  # the first node, which the input feeds
        self.fuse.bias.fill_(offset)

    def forward(self, x: Tensor, probs: Sequence[Tensor | None]) -> Tensor:
        """Run the cell.

        Args:
            x (Tensor): Input of shape (N, C, H, W).
            probs (Sequence[Tensor | None]): What ``slots.probs()`` returns.

        Returns:
            Tensor: Output of shape (N, C, H, W), without activation.
        """

        def edge(index: int, node: Tensor) -> Tensor:
            return self.operations[index](node, probs[index])

        distilled = []
        for index in (0, 2, 4):
            distilled.append(_activate(edge(index, x)))
            x = _activate(edge(index + 1, x) + x)
        distilled.append(_activate(edge(6, x)))
        return self.fuse(torch.cat(distilled, dim=1))


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.05)
