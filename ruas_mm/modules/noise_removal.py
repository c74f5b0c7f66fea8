"""The noise removal module: what the low-level task is to the scene module."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor, nn

from ruas_mm.modules.distillation_cell import DistillationCell, cell_slots
from ruas_mm.search import GenotypeLike
from ruas_mm.utils.text import show


class NoiseRemoval(nn.Module):
    """Finds the noise of an image with distillation cells and takes it away (paper §4.1, METHOD §5: Psi_r).

    A convolution 3 -> C, some cells with weights of their own and one shared architecture, a convolution C -> 3: that
    is the noise. The defaults are those that run the authors' published weights unchanged. A new module changes next
    to nothing, so that its training starts from the image itself.

    Args:
        genotype (Genotype | Mapping | str | Path, optional): The cells' architecture, slots ``noise_removal.*``; None
            makes it searchable.
        channels (int): Channels C inside.
        cells (int): Number of cells.

    Raises:
        ValueError: If there are no channels or cells, or the genotype does not fit.
    """

    def __init__(self, genotype: GenotypeLike = 'ruas_enhance_journal', channels: int = 6, cells: int = 3) -> None:
        super().__init__()
        for option, value in (('channels', channels), ('cells', cells)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f'{option} of NoiseRemoval must be an integer of at least 1, got {show(value)}.')
        self.slots = cell_slots('noise_removal', genotype)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.cells = nn.ModuleList(DistillationCell(self.slots, channels) for _ in range(cells))
        self.to_noise = nn.Conv2d(channels, 3, 3, padding=1)
        for cell in self.cells:
            cell.start_from(1.0, 0.0)
        with torch.no_grad():
            # Nearly no noise. Not none at all: with weights of 0, no gradient would reach the cells.
            self.to_noise.weight.mul_(0.01)
            self.to_noise.bias.zero_()

    def forward(self, u: Tensor) -> Tensor:
        """Remove the noise.

        Args:
            u (Tensor): Noisy images of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            Tensor: x = u - n, of the same shape. It is not clamped, so that a loss sees what lies outside [0, 1].
        """
        features = self.stem(u)
        probs = self.slots.probs()
        for cell in self.cells:
            features = cell(features, probs)
        return u - self.to_noise(features)
