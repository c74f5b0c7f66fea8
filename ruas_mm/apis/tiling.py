"""Images of any size in bounded memory: tiles, each computed with as much around it as its pixels see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# A network that sees further than this is not worth tiling.
_FURTHEST = 2048


class Reach(NamedTuple):
    """How far a pixel of the output sees.

    Attributes:
        before (int): Pixels upwards and to the left.
        after (int): Pixels downwards and to the right.
    """

    before: int
    after: int


class Tile(NamedTuple):
    """A part of an image, as (rows, columns) each.

    Attributes:
        inner (tuple[slice, slice]): Its place in the image.
        outer (tuple[range, range]): What has to be computed for it; places beyond the image are its extension's.
        crop (tuple[slice, slice]): ``inner``, in ``outer``.
    """

    inner: tuple[slice, slice]
    outer: tuple[range, range]
    crop: tuple[slice, slice]


@torch.no_grad()
def find_reach(network: Callable[[Tensor], Tensor], grid: int = 1) -> Reach:
    """Find out how far a network sees, by running it.

    One pixel of a gray image, or one block of the grid, becomes NaN. What depends on it, whatever the weights, becomes
    NaN too.

    Args:
        network (Callable): Takes an image of shape (1, 3, H, W), RGB in [0, 1], and returns maps of shape (1, C, H, W).
            It runs on the CPU, where a convolution does not spread NaN over more than its taps (or a few pixels more).
        grid (int): Side in pixels of the blocks that the network averages, from the upper left corner on.

    Returns:
        Reach: The reach along the axis where it is larger, for the pixel of a block that sees furthest.

    Raises:
        ValueError: If the network sees further than 2048 pixels.
    """
    side = 64
    while side <= 2 * _FURTHEST:
        centre = side // 2 // grid * grid
        block = slice(centre, centre + grid)
        image = torch.full((1, 3, side, side), 0.5)
        image[..., block, block] = torch.nan
        places = network(image).isnan().any(dim=1)[0].nonzero()
        first, last = int(places.min()), int(places.max())
        if first > 0 and last < side - 1:
            return Reach(last - centre, centre + grid - 1 - first)
        side *= 2
    raise ValueError(f'The network sees further than {_FURTHEST} pixels, so it cannot run in tiles.')


def split(height: int, width: int, side: int, reach: Reach, border: int = 0, grid: int = 1) -> Iterator[Tile]:
    """Cut an image into tiles.

    Args:
        height (int): Rows of the image.
        width (int): Columns of the image.
        side (int): Largest side of a tile, without what is around it.
        reach (Reach): How far the network sees.
        border (int): Pixels by which the image is extended on every side.
        grid (int): Side in pixels of the blocks that the network averages, from the upper left corner of the extended
            image on.

    Yields:
        Tile: Tiles that cover the image once. Where ``outer`` ends inside the extended image, ``crop`` keeps clear of
        its end by the reach, and it ends between two blocks of the grid; elsewhere it ends where the extended image
        does, so that the network's padding is the same.
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            spans = [_span(top, height, side, reach, border, grid), _span(left, width, side, reach, border, grid)]
            yield Tile(*zip(*spans, strict=True))


def _span(start: int, size: int, side: int, reach: Reach, border: int, grid: int) -> tuple[slice, range, slice]:
    """Return inner, outer and crop of a tile along one axis."""
    end = min(start + side, size)
    first, last = start - reach.before, end + reach.after
    first -= (first + border) % grid
    last += -(last + border) % grid
    first, last = max(first, -border), min(last, size + border)
    return slice(start, end), range(first, last), slice(start - first, end - first)
