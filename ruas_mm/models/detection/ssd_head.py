"""The SSD head: mmdet's with a fix for testing, and a searchable version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models import SSDHead as _SSDHead
from torch import Tensor, nn

from ruas_mm.search import HIGH_LEVEL_SPACE, GenotypeLike, SearchSlots, reset_scales


class SSDHead(_SSDHead):
    """mmdet's SSD head with a fix for prediction.

    Before prediction, mmdet 3.3.0 reads the attribute ``loss_cls``, which its SSD head does not have because it
    computes the loss without such a module. Without this attribute, every test step raises an AttributeError.
    """

    loss_cls = None


class SearchableSSDHead(SSDHead):
    """SSD head whose localisation and confidence layers are searchable slots (paper §5.2, METHOD §5).

    The slots are ``ssd_head.loc_1`` … for the boxes and ``ssd_head.conf_1`` … for the classes, one per level.

    Args:
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None makes it searchable.
        merged (bool): Whether mixed operations merge their kernels; see :class:`ruas_mm.search.MixedOp`.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.
        **kwargs (Any): Options of ``mmdet.SSDHead``: num_classes, in_channels, anchor_generator, … The options of
            its towers (stacked_convs, use_depthwise, conv_cfg, norm_cfg, act_cfg) are not supported, because each layer
            is one slot.

    Raises:
        ValueError: If the genotype does not fit the slots, the levels do not fit the anchor generator, or an option
            requests layers that this head does not have.
    """

    def __init__(
        self, genotype: GenotypeLike = None, merged: bool = True, normalise: bool = False, **kwargs: Any
    ) -> None:
        for option in ('stacked_convs', 'use_depthwise', 'conv_cfg', 'norm_cfg', 'act_cfg'):
            if kwargs.get(option):
                raise ValueError(
                    f'{option} of SearchableSSDHead must not be set, got {kwargs[option]!r}: each of its layers is a '
                    'single searchable convolution; use ruas_mm.SSDHead for towers and SSD-Lite.'
                )
        # Before mmdet's __init__, which builds the layers.
        self._genotype, self._merged, self._normalise = genotype, merged, normalise
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        strides = [max(stride) for stride in self.prior_generator.strides]
        if len(strides) != len(self.in_channels):
            raise ValueError(
                f'SearchableSSDHead must have as many in_channels as anchor_generator has strides, got '
                f'{len(self.in_channels)} and {len(strides)}.'
            )
        levels = range(len(self.in_channels))
        names = [f'{kind}_{level + 1}' for kind in ('loc', 'conf') for level in levels]
        edges = [
            (f'level {level + 1}, stride {strides[level]}', node) for node in ('boxes', 'classes') for level in levels
        ]
        self.slots = SearchSlots('ssd_head', names, HIGH_LEVEL_SPACE, self._genotype, edges, self._normalise)
        self.reg_convs, self.cls_convs = nn.ModuleList(), nn.ModuleList()
        for convs, outputs in ((self.reg_convs, 4), (self.cls_convs, self.cls_out_channels)):
            for channels, priors in zip(self.in_channels, self.num_base_priors, strict=True):
                index = len(self.reg_convs) + len(self.cls_convs)
                convs.append(self.slots.build(index, channels, priors * outputs, merged=self._merged))

    def init_weights(self) -> None:
        """Initialise the weights, and the scales of normalised mixed operations after them."""
        super().init_weights()
        reset_scales(self)

    def forward(self, x: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict boxes and classes of every anchor.

        Args:
            x (Iterable[Tensor]): Levels of shape (N, C, H, W).

        Returns:
            tuple[list[Tensor], list[Tensor]]: Class scores (N, A * (classes + 1), H, W) and box deltas (N, A * 4, H,
            W), one per level.

        Raises:
            ValueError: If the number of levels is not that of ``in_channels``.
        """
        x = tuple(x)
        probs = self.slots.probs()
        levels = len(self.reg_convs)
        if len(x) != levels:
            raise ValueError(
                f'SearchableSSDHead must be given {levels} levels, one for each of in_channels, got {len(x)}.'
            )
        bbox_preds = [conv(f, p) for conv, f, p in zip(self.reg_convs, x, probs[:levels], strict=True)]
        cls_scores = [conv(f, p) for conv, f, p in zip(self.cls_convs, x, probs[levels:], strict=True)]
        return cls_scores, bbox_preds
