"""How bright a result is to be: a scale from the image itself, over what the model makes of it, to the brightest."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ruas_mm.modules.resampling import shrink
from ruas_mm.utils.text import show

# Side in pixels of the copy that a level is found on, at most, and pixels by which it is extended there.
_SIDE = 64
_BORDER = 4
# The gains that are tried, half a stop apart; between them is interpolated.
_GAINS = tuple(2 ** (step / 2) for step in range(9))
# What 8 bits show as white, and the share of the picture that may become so in at least one channel.
_WHITE = 254.5 / 255
_BURNT = 0.05
# 'auto': the mean of the result of a dark picture, and the means between which pictures begin and end to count as dark.
_MEAN = 0.5
_BRIGHT, _DARK = 0.4, 0.3


class Level(NamedTuple):
    """What is done to each picture of a batch.

    Attributes:
        gain (Tensor): Factor of at least 1 that the picture is multiplied by before the model, shape (N,).
        strength (Tensor): Share in [0, 1] of the model's result in the result, shape (N,); the rest is the picture.
    """

    gain: Tensor
    strength: Tensor

    def expose(self, y: Tensor) -> Tensor:
        """Apply the gain.

        Args:
            y (Tensor): Pictures of shape (N, 3, H, W) in [0, 1].

        Returns:
            Tensor: What the model gets, of the same shape and range.
        """
        return (y * _of_pictures(self.gain, y)).clamp(max=1)

    def blend(self, y: Tensor, result: Tensor) -> Tensor:
        """Apply the strength to a result.

        Args:
            y (Tensor): Pictures of shape (N, 3, H, W) in [0, 1].
            result (Tensor): What the model made of them, of the same shape and range.

        Returns:
            Tensor: The blend: exactly the picture at strength 0, exactly the result at 1.
        """
        return torch.lerp(y, result, _of_pictures(self.strength, y).to(result.dtype))

    def weaken(self, t: Tensor) -> Tensor:
        """Return the illumination that the pictures were divided by, gain and strength included.

        Args:
            t (Tensor): Illuminations that the model found, of shape (N, 3, H, W) in (0, 1].

        Returns:
            Tensor: Illuminations of the same shape and range: y / t is the blend, as far as it is not clamped.
        """
        gain, strength = _of_pictures(self.gain, t), _of_pictures(self.strength, t)
        return t / (t * (1 - strength) + gain * strength)


def check_exposure(exposure: Any, owner: str) -> None:
    """Check an exposure.

    Args:
        exposure (Any): None, ``auto`` or the mean brightness of a result, a number in (0, 1).
        owner (str): Whose option it is, for the message.

    Raises:
        ValueError: If it is none of those.
    """
    if exposure is None or (isinstance(exposure, str) and exposure == 'auto'):
        return
    if not isinstance(exposure, Real) or not 0 < exposure < 1:
        raise ValueError(f"exposure of {owner} must be None, 'auto' or a number in (0, 1), got {show(exposure)}.")


def block_side(height: int, width: int) -> int:
    """Return the side in pixels of the blocks of a picture that are averaged for :func:`find_level`."""
    return -(-max(height, width) // _SIDE)


def brightness(image: Tensor) -> Tensor:
    """Return the mean luminance (BT.601 luma) of images of shape (N, 3, H, W), shape (N,)."""
    return _luma(image).mean(dim=(-2, -1))


@torch.no_grad()
def find_level(enhance: Callable[[Tensor], Tensor], copy: Tensor, exposure: float | str) -> Level:
    """Find the level at which results are as bright as asked for.

    The levels are a scale: from the picture itself to what the model makes of it (strength 0 to 1), and on to what the
    model makes of it with a gain (1 to 16). Nine results for a small copy say how bright a picture becomes along the
    scale, and how much of it becomes white. The level is where the brightness is the target, or before, where 5 % more
    of the picture than before have become white. A picture that already is as bright as the target stays as it is.

    ``auto`` has the target 0.5 for pictures whose mean is at most 0.3, which fades to the picture's own mean at 0.4:
    brighter ones pass unchanged. And the gain takes nothing in the copy beyond white: a picture that shows a lamp in
    the dark was not exposed too little, and becomes no brighter than without a gain.

    Args:
        enhance (Callable): The scene module: takes pictures of shape (N, 3, H, W) in [0, 1] and returns u^K.
        copy (Tensor): The pictures, averaged over blocks of :func:`block_side`.
        exposure (float | str): The target: mean luminance of a result in (0, 1), or ``auto``.

    Returns:
        Level: Gain and strength of each picture, whatever the others of the batch are.
    """
    n, gains = len(copy), copy.new_tensor(_GAINS)
    extended = F.pad(copy, [_BORDER] * 4, mode='replicate')
    exposed = (extended.unsqueeze(1) * gains.view(-1, 1, 1, 1)).clamp(max=1)
    results = enhance(exposed.flatten(0, 1))[..., _BORDER:-_BORDER, _BORDER:-_BORDER]
    scale = torch.cat([copy.unsqueeze(1), results.unflatten(0, (n, len(gains)))], dim=1)
    means = _luma(scale).mean(dim=(-2, -1))
    burnt = (scale.amax(dim=2) >= _WHITE).to(means.dtype).mean(dim=(-2, -1))
    mean = means[:, 0]
    if exposure == 'auto':
        darkness = ((_BRIGHT - mean) / (_BRIGHT - _DARK)).clamp(0, 1)
        target = mean + (_MEAN - mean) * darkness
        most = 1 / _luma(copy).amax(dim=(-2, -1)).clamp(min=1 / _GAINS[-1])
    else:
        target, most = torch.full_like(mean, exposure), torch.full_like(mean, _GAINS[-1])
    place = torch.minimum(_place(means, target), _place(burnt, burnt[:, 0] + _BURNT))
    gain = torch.minimum(2 ** ((place - 1).clamp(min=0) / 2), most)
    return Level(gain, place.clamp(max=1))


def _place(values: Tensor, target: Tensor) -> Tensor:
    """Return how far along a scale (N, L) a target (N,) is reached: 0 at the first value, 0.5 midway to the next one.

    Each step adds the share of it that lies below the target. Values that fall again count as the largest before.
    """
    values = values.cummax(dim=1).values
    start, step = values[:, :-1], values.diff(dim=1)
    return ((target.unsqueeze(1) - start) / step.clamp(min=1e-6)).clamp(0, 1).sum(dim=1)


def _luma(image: Tensor) -> Tensor:
    red, green, blue = image.unbind(dim=-3)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _of_pictures(values: Tensor, maps: Tensor) -> Tensor:
    return values.to(maps.dtype).view(-1, 1, 1, 1)


def small_copy(y: Tensor) -> Tensor:
    """Return the copy of pictures of shape (N, 3, H, W) that :func:`find_level` takes."""
    return shrink(y, block_side(*y.shape[-2:]))
