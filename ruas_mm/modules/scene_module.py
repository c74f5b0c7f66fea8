"""The scene module: a Retinex model, unrolled, that turns a dark image into scene features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ruas_mm.modules.distillation_cell import DistillationCell, cell_slots
from ruas_mm.modules.resampling import enlarge, shrink
from ruas_mm.search import DrawnCandidate, GenotypeLike
from ruas_mm.utils.text import show

_OPTIONS = {
    'warm_start': ('rectified', 'updated', 'fixed', 'feature'),
    'source': ('feature', 'illumination'),
    'update': ('direct', 'gradient'),
}

# Beyond it, too little is left of a photograph to see where its light is.
_LARGEST_FACTOR = 16


class SceneOutput(NamedTuple):
    """What the scene module finds, stage by stage.

    Attributes:
        features (list[Tensor]): u^1 … u^K, each of shape (N, C, H, W) in [0, 1]; the last one goes to the task.
        illuminations (list[Tensor]): t^1 … t^K, each of shape (N, C, H, W) in [t_min, 1].

    At a ``resolution`` below 1 the last of both have the size of the image all the same; those of the earlier stages
    have the reduced size at which they were found.
    """

    features: list[Tensor]
    illuminations: list[Tensor]


class SceneModule(nn.Module):
    """Retinex-inspired unrolling with a distillation cell in each stage (paper Eq. 3-4 and §5.1, METHOD §2).

    Stage k makes a first guess of the illumination (the warm start), lets its cell refine it and divides:
    t = clamp(sigmoid(cell(guess)), t_min, 1), u = clamp(y / t, 0, 1). Every stage has its own weights; all share one
    architecture. The defaults are those that run the authors' published weights unchanged.

    Args:
        stages (int): Number K of stages (Table II: 3).
        channels (int): Channels of the image.
        genotype (Genotype | Mapping | str | Path, optional): The cell's architecture; None makes it searchable.
        gamma (float): Strength of the residual rectification, in [0, 1].
        t_min (float): Smallest illumination, in (0, 1) (journal release: 1e-4, conference release: 1e-3).
        window (int): Side in pixels of the local maximum's window: 2 is the release's block of the pixel and its
            right, lower and lower right neighbours; an odd side is centred, as the paper says.
        warm_start (str): Guess of stages 2 … K: ``rectified`` max(s) - gamma (u - y); ``updated`` max(s); ``fixed``
            max(y), with which a loss on u^K trains the last stage alone; ``feature`` u itself (the detection release).
            The first stage always starts from max(y).
        source (str): What s is above: ``feature`` u (release) or ``illumination`` t (the paper's formula).
        update (str): ``direct`` as above, or ``gradient`` t = clamp(guess - cell(guess), t_min, 1), as the paper
            writes Eq. 3.
        with_cp (bool): Whether a training keeps only what each stage finds, and runs the stage again when its gradient
            is needed: less memory, more time, the same gradients.
        normalise (bool): Whether the mixed operations of the searchable form normalise their kernels; see
            :class:`ruas_mm.search.MixedOp`.
        resolution (float): Side of the image that the stages see, as a share of the whole image's: 1, 1/2, 1/3, … or
            1/16. Below 1 the image is averaged over blocks of pixels first, and the last illumination, enlarged
            bilinearly, divides the image at its full size: detail stays, since illumination is smooth. Less takes less
            time and memory.

    Raises:
        ValueError: If an option has no such value; the message names it.
    """

    def __init__(
        self,
        stages: int = 3,
        channels: int = 3,
        genotype: GenotypeLike = 'ruas_enhance_journal',
        gamma: float = 0.5,
        t_min: float = 1e-4,
        window: int = 2,
        warm_start: str = 'rectified',
        source: str = 'feature',
        update: str = 'direct',
        with_cp: bool = False,
        normalise: bool = False,
        resolution: float = 1.0,
    ) -> None:
        super().__init__()
        for option, value in (('warm_start', warm_start), ('source', source), ('update', update)):
            if value not in _OPTIONS[option]:
                choices = ', '.join(_OPTIONS[option])
                raise ValueError(f'SceneModule has no {option}={show(value)}; choose from {choices}.')
        for option, value in (('stages', stages), ('channels', channels)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f'{option} of SceneModule must be an integer of at least 1, got {show(value)}.')
        if not isinstance(gamma, Real) or not 0 <= gamma <= 1:
            raise ValueError(f'gamma of SceneModule must be a number in [0, 1], got {show(gamma)}.')
        if not isinstance(t_min, Real) or not 0 < t_min < 1:
            raise ValueError(f't_min of SceneModule must be a number in (0, 1), got {show(t_min)}.')
        if not isinstance(window, Integral) or window < 1 or (window != 2 and window % 2 == 0):
            raise ValueError(f'window of SceneModule must be 2 or an odd integer, got {show(window)}.')
        self.resolution = resolution
        self.gamma = gamma
        self.t_min = t_min
        self.window = window
        self.warm_start = warm_start
        self.source = source
        self.update = update
        self.with_cp = with_cp
        self.slots = cell_slots('scene', genotype, normalise)
        self.cells = nn.ModuleList(DistillationCell(self.slots, channels) for _ in range(stages))
        # A new module already is a mild enhancer: t begins as the guess itself, to first order around the middle of
        # its range. From random weights t would begin as one constant, and short trainings would end near it.
        for cell in self.cells:
            cell.start_from(4.0, -2.0) if update == 'direct' else cell.start_from(0.0, 0.0)

    @property
    def resolution(self) -> float:
        """Side of the image that the stages see, as a share of the whole image's."""
        return 1 / self.factor

    @resolution.setter
    def resolution(self, resolution: float) -> None:
        in_range = isinstance(resolution, Real) and 1 / _LARGEST_FACTOR <= resolution <= 1
        factor = round(1 / resolution) if in_range else 0
        if not in_range or abs(factor * resolution - 1) > 0.015:  # 0.33 will do
            raise ValueError(
                f'resolution of SceneModule must be 1, 1/2, 1/3, … or 1/{_LARGEST_FACTOR}, got {show(resolution)}.'
            )
        self.factor = factor

    def forward(self, y: Tensor) -> SceneOutput:
        """Estimate illumination and scene feature.

        Args:
            y (Tensor): Dark images of shape (N, C, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            SceneOutput: Features and illuminations of every stage.
        """
        if self.factor == 1:
            return self.unroll(y)
        features, illuminations = self.unroll(shrink(y, self.factor))
        t = enlarge(illuminations[-1], self.factor, y.shape[-2:]).clamp(self.t_min, 1)
        return SceneOutput([*features[:-1], (y / t).clamp(0, 1)], [*illuminations[:-1], t])

    def unroll(self, y: Tensor) -> SceneOutput:
        """Run the stages on every pixel, whatever the resolution.

        Args:
            y (Tensor): Dark images as in :meth:`forward`.

        Returns:
            SceneOutput: Features and illuminations of every stage, all of the size of the images.
        """
        probs = self.slots.probs()
        start = self._local_max(y)
        features: list[Tensor] = []
        illuminations: list[Tensor] = []
        for cell in self.cells:
            stage = partial(self._stage, cell, y, start, probs)
            if self.with_cp and torch.is_grad_enabled():
                stage = partial(checkpoint, stage, use_reentrant=False, preserve_rng_state=False)
            u, t = stage(*(features[-1:] + illuminations[-1:]))
            features.append(u)
            illuminations.append(t)
        return SceneOutput(features, illuminations)

    def _stage(
        self,
        cell: DistillationCell,
        y: Tensor,
        start: Tensor,
        probs: Sequence[Tensor | DrawnCandidate | None],
        *last: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return feature and illumination, given those of the last stage, if any."""
        guess = self._warm_start(y, start, *last) if last else start
        refined = cell(guess.to(y.dtype), probs)
        # The division amplifies rounding by 1/t: float32 even where autocast made the cell's output half.
        refined = refined.to(torch.promote_types(y.dtype, torch.float32))
        t = torch.sigmoid(refined) if self.update == 'direct' else guess - refined
        t = t.clamp(self.t_min, 1)
        return (y / t).clamp(0, 1), t

    def _warm_start(self, y: Tensor, start: Tensor, feature: Tensor, illumination: Tensor) -> Tensor:
        if self.warm_start == 'fixed':
            return start
        if self.warm_start == 'feature':
            return feature
        guess = self._local_max(feature if self.source == 'feature' else illumination)
        return guess - self.gamma * (feature - y) if self.warm_start == 'rectified' else guess

    def _local_max(self, x: Tensor) -> Tensor:
        # Zeros beyond the border: images, features and illuminations are never negative.
        before, after = (self.window - 1) // 2, self.window // 2
        x = F.pad(x, (before, after, before, after))
        if self.window == 2:
            # Two passes over the image, where the pooling of the CPU takes as long as a convolution.
            larger = _Larger.apply if torch.is_grad_enabled() else torch.maximum
            x = larger(x[..., :-1], x[..., 1:])
            return larger(x[..., :-1, :], x[..., 1:, :])
        if torch.is_grad_enabled():
            return F.max_pool2d(x, self.window, stride=1)
        # The same values one axis after the other; their gradient would choose another of equal numbers.
        return F.max_pool2d(F.max_pool2d(x, (1, self.window), stride=1), (self.window, 1), stride=1)


class _Larger(torch.autograd.Function):
    """The larger of two numbers, the first of equal ones: the maximum and the gradient of ``F.max_pool2d``.

    ``torch.maximum`` splits the gradient of equal numbers, and keeps both instead of one bit.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first >= second)
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (chosen,) = ctx.saved_tensors
        first = grad * chosen
        return first, grad - first
