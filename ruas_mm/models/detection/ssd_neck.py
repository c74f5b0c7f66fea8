"""SSD's neck with searchable extra layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mmdet.models.necks.ssd_neck import L2Norm
from mmengine.model import BaseModule
from torch import Tensor, nn

from ruas_mm.search import HIGH_LEVEL_SPACE, GenotypeLike, SearchSlots, reset_scales


class SearchableSSDNeck(BaseModule):
    """The extra layers of SSD, in which each convolution is a slot ``ssd_neck.extra_i`` (paper §5.2, METHOD §5).

    Every added level has two convolutions with ReLU: the first halves the channels, the second has the stride of the
    level. With alternating 1x1 and 3x3 convolutions, the neck is equivalent to mmdet's ``SSDNeck``.

    Args:
        in_channels (Sequence[int]): Channels of the backbone's levels.
        out_channels (Sequence[int]): Channels of all levels: those of the backbone, then those added.
        level_strides (Sequence[int]): Stride of each added level.
        level_paddings (Sequence[int]): 1 keeps the size of each added level (up to its stride); 0 drops its border of
            one pixel, as an unpadded 3x3 convolution does at the end of SSD300.
        l2_norm_scales (Sequence[float]): Initial scales of the L2 norms on the first levels of the backbone, one per
            level: (20,) for SSD, (10, 8, 5) for the DARK FACE layout.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None makes it searchable.
        merged (bool): Whether mixed operations merge their kernels; see :class:`ruas_mm.search.MixedOp`.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.
        init_cfg (dict, optional): Initialisation; Xavier by default, as in mmdet.

    Raises:
        ValueError: If the lengths or values of the lists are inconsistent, or the genotype does not fit the slots.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        level_strides: Sequence[int],
        level_paddings: Sequence[int],
        l2_norm_scales: Sequence[float] = (20.0,),
        genotype: GenotypeLike = None,
        merged: bool = True,
        normalise: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Xavier', distribution='uniform', layer='Conv2d'))
        added = len(out_channels) - len(in_channels)
        if tuple(in_channels) != tuple(out_channels[: len(in_channels)]):
            raise ValueError(f'out_channels {out_channels} of the neck must begin with in_channels {in_channels}.')
        if not added == len(level_strides) == len(level_paddings):
            raise ValueError(
                f'The neck adds {added} levels, but level_strides has {len(level_strides)} and level_paddings '
                f'{len(level_paddings)} entries.'
            )
        if set(level_paddings) - {0, 1}:
            raise ValueError(f'level_paddings of the neck must be 0 or 1, got {level_paddings}.')
        if any(padding == 0 and stride != 1 for padding, stride in zip(level_paddings, level_strides, strict=True)):
            raise ValueError(
                f'level_strides of the neck must be 1 for levels with padding 0, got {level_strides} for '
                f'level_paddings {level_paddings}.'
            )
        if len(l2_norm_scales) > len(in_channels):
            raise ValueError(
                f'l2_norm_scales of the neck must have at most {len(in_channels)} entries, one per backbone level, '
                f'got {len(l2_norm_scales)}.'
            )
        self.l2_norms = nn.ModuleList(L2Norm(c, s) for c, s in zip(in_channels, l2_norm_scales))  # noqa: B905
        for norm in self.l2_norms:
            nn.init.constant_(norm.weight, norm.scale)
        self.level_paddings = tuple(level_paddings)
        names = [f'extra_{i + 1}' for i in range(2 * added)]
        # Every second slot ends a level. As in the head, the levels of the backbone are counted first.
        first = len(in_channels)
        nodes = [f'level {first + i // 2 + 1}' if i % 2 else name for i, name in enumerate(names)]
        edges = list(itertools.pairwise([f'level {first}', *nodes]))
        self.slots = SearchSlots('ssd_neck', names, HIGH_LEVEL_SPACE, genotype, edges, normalise)
        self.extra = nn.ModuleList()
        previous = in_channels[-1]
        for channels, stride in zip(out_channels[len(in_channels) :], level_strides, strict=True):
            for c_in, c_out, s in ((previous, channels // 2, 1), (channels // 2, channels, stride)):
                self.extra.append(self.slots.build(len(self.extra), c_in, c_out, s, merged))
            previous = channels
        self.relu = nn.ReLU(inplace=True)

    def init_weights(self) -> None:
        """Initialise the weights, and the scales of normalised mixed operations after them."""
        super().init_weights()
        reset_scales(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Add the levels.

        Args:
            inputs (Sequence[Tensor]): Levels of the backbone, each of shape (N, C, H, W), from fine to coarse.

        Returns:
            tuple[Tensor, ...]: All levels; the first levels of the backbone are normalised if configured.
        """
        outs = [norm(x) for norm, x in zip(self.l2_norms, inputs)]  # noqa: B905 - the other levels are unchanged
        outs.extend(inputs[len(outs) :])
        x, probs = inputs[-1], self.slots.probs()
        for level, padding in enumerate(self.level_paddings):
            for index in (2 * level, 2 * level + 1):
                x = self.relu(self.extra[index](x, probs[index]))
            if padding == 0:
                x = x[..., 1:-1, 1:-1]
            outs.append(x)
        return tuple(outs)
