"""The VGG backbone of SSD, with options used by face detectors."""

from __future__ import annotations

from typing import Any

from mmdet.models import SSDVGG as _SSDVGG
from torch import nn


class SSDVGG(_SSDVGG):
    """mmdet's SSDVGG with an option to halve the resolution in the last pooling and an option to freeze the weights.

    Args:
        depth (int): Depth of VGG, from {11, 13, 16, 19}.
        pool5_stride (int): Stride of the pooling before fc6: 1 as in SSD (fc7 at stride 16), 2 as in the DARK FACE
            layout (fc7 at stride 32, METHOD §5).
        frozen (bool): Whether to freeze all weights; intended for a pre-trained backbone.
        **kwargs (Any): Options of ``mmdet.SSDVGG``: out_feature_indices, pretrained, …
    """

    def __init__(self, depth: int, pool5_stride: int = 1, frozen: bool = False, **kwargs: Any) -> None:
        super().__init__(depth, **kwargs)
        if pool5_stride != 1:
            last_pool = max(i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d))
            self.features[last_pool] = nn.MaxPool2d(pool5_stride, pool5_stride, ceil_mode=True)
        if frozen:
            self.requires_grad_(False)
