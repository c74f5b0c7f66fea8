"""Smaller images by averaging and larger maps by bilinear interpolation, on one grid of square blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def shrink(image: Tensor, factor: int) -> Tensor:
    """Average blocks of ``factor`` x ``factor`` pixels, from the upper left corner on.

    Where the last block would end outside the image, the image is extended by its outermost pixels. (Poolings with
    ragged last blocks would do without, but exporters and runtimes disagree about their divisor.)

    Args:
        image (Tensor): Images of shape (N, C, H, W), any size from 1x1.
        factor (int): Side of a block in pixels, at least 1, which returns the image itself.

    Returns:
        Tensor: Images of shape (N, C, ceil(H / factor), ceil(W / factor)).
    """
    if factor == 1:
        return image
    # Whatever the size: the pooling leaves out what makes no whole block.
    return F.avg_pool2d(F.pad(image, (0, factor - 1, 0, factor - 1), mode='replicate'), factor)


def enlarge(maps: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Undo the change of size of :func:`shrink`: each value stands at the centre of its block.

    Args:
        maps (Tensor): Maps of shape (N, C, ceil(H / factor), ceil(W / factor)).
        factor (int): Side of a block in pixels.
        size (tuple[int, int]): H and W.

    Returns:
        Tensor: Maps of shape (N, C, H, W), interpolated bilinearly; beyond the centres of the outermost blocks they are
        constant.
    """
    if factor == 1:
        return maps
    return F.interpolate(maps, scale_factor=factor, mode='bilinear')[..., : size[0], : size[1]]
