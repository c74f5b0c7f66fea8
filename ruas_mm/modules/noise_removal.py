"""The noise removal module, which is the low-level task that follows the scene module."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor, nn

from ruas_mm.modules.distillation_cell import DistillationCell, cell_slots
from ruas_mm.search import GenotypeLike
from ruas_mm.utils.text import show


class NoiseRemoval(nn.Module):
    """Estimates the noise of an image with distillation cells and subtracts it (paper §4.1, METHOD §5: Psi_r).

    The noise is the output of a convolution 3 -> C, several cells that share one architecture but not their weights,
    and a convolution C -> 3. The defaults fit the authors' published weights. A new module hardly changes the image, so
    that training starts from the identity.

    Args:
        genotype (Genotype | Mapping | str | Path, optional): The cells' architecture, slots ``noise_removal.*``; None
            makes it searchable.
        channels (int): Number of hidden channels C.
        cells (int): Number of cells.

    Raises:
        ValueError: If ``channels`` or ``cells`` is not a positive integer, or the genotype does not fit.
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
            # Small weights, so that the noise is almost 0. With weights of 0, no gradient would flow to the cells.
            self.to_noise.weight.mul_(0.01)
            self.to_noise.bias.zero_()

    def forward(self, u: Tensor) -> Tensor:
        """Remove the noise.

        Args:
            u (Tensor): Noisy images of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            Tensor: x = u - n, of the same shape. It is not clamped, so that losses can use values outside [0, 1].
        """
        features = self.stem(u)
        probs = self.slots.probs()
        for cell in self.cells:
            features = cell(features, probs)
        return u - self.to_noise(features)
