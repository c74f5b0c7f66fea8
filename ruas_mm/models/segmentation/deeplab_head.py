"""The DeepLab head with searchable feature conversion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule, build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from mmseg.models import DepthwiseSeparableASPPHead
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ruas_mm.search import HIGH_LEVEL_SPACE, GenotypeLike, SearchSlots, reset_scales


class SearchableASPP(BaseModule):
    """Parallel branches on one feature map; the operation of each branch is a slot ``deeplab_head.branch_i``.

    With a 1x1 convolution and 3x3 convolutions of dilation 6, 12 and 18, this is DeepLab's atrous spatial pyramid
    pooling without the image pooling.

    Args:
        branches (int): Number of branches.
        in_channels (int): Channels of the feature map.
        channels (int): Channels of each branch's output.
        reduced_channels (int, optional): Channels after a 1x1 convolution before the branches; None omits it.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None makes it searchable.
        merged (bool): Whether mixed operations merge their kernels; see :class:`ruas_mm.search.MixedOp`.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.
        norm_cfg (dict, optional): Normalisation after each convolution.
        act_cfg (dict): Activation after each normalisation.
    """

    def __init__(
        self,
        branches: int,
        in_channels: int,
        channels: int,
        reduced_channels: int | None,
        genotype: GenotypeLike,
        merged: bool,
        normalise: bool,
        norm_cfg: dict | None,
        act_cfg: dict,
    ) -> None:
        super().__init__(dict(type='Kaiming', layer='Conv2d'))  # as mmcv's ConvModule
        self.reduce = None
        if reduced_channels is not None:
            self.reduce = ConvModule(in_channels, reduced_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
            in_channels = reduced_channels
        names = [f'branch_{index + 1}' for index in range(branches)]
        self.slots = SearchSlots(
            'deeplab_head', names, HIGH_LEVEL_SPACE, genotype, [('backbone', 'fusion')] * branches, normalise
        )
        self.operations = nn.ModuleList(
            self.slots.build(index, in_channels, channels, merged=merged) for index in range(branches)
        )
        self.norms = nn.ModuleList(
            nn.Identity() if norm_cfg is None else build_norm_layer(norm_cfg, channels)[1] for _ in range(branches)
        )
        self.act = build_activation_layer(act_cfg)

    def __len__(self) -> int:
        """Return the number of branches."""
        return len(self.operations)

    def __getitem__(self, index: int) -> nn.Module:
        """Return the operation of a branch: a convolution, or a mixed operation in the searchable form."""
        return self.operations[index]

    def init_weights(self) -> None:
        """Initialise the weights, and the scales of normalised mixed operations after them."""
        super().init_weights()
        reset_scales(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Run the branches.

        Args:
            x (Tensor): Feature map of shape (N, C, H, W).

        Returns:
            list[Tensor]: One feature map of shape (N, C', H, W) per branch.
        """
        if self.reduce is not None:
            x = self.reduce(x)
        parts = zip(self.operations, self.norms, self.slots.probs(), strict=True)
        return [self.act(norm(operation(x, probs))) for operation, norm, probs in parts]


class SearchableDeepLabHead(DepthwiseSeparableASPPHead):
    """The head of DeepLabV3+ or DeepLabV3 with searchable feature-conversion branches (paper §5.3).

    The slots are ``deeplab_head.branch_1`` …, each chosen from the ten high-level operations; the image pooling and the
    decoder are those of mmseg. A 1x1 convolution first reduces the channels, both during the search and afterwards: ten
    candidates per branch on the 2048 channels of a ResNet-50 would have 813 million weights, on 256 they have 51
    million.

    Args:
        branches (int): Number of branches in addition to the image pooling.
        reduced_channels (int, optional): Input channels of the branches; None keeps those of the backbone.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None makes it searchable.
        merged (bool): Whether mixed operations merge their kernels; see :class:`ruas_mm.search.MixedOp`.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.
        c1_in_channels (int): Channels of the first backbone level, which the decoder of DeepLabV3+ uses; 0 for
            DeepLabV3, which has no decoder.
        c1_channels (int): Number of channels to which the first level is reduced.
        **kwargs (Any): Options of mmseg's heads: in_channels, channels, num_classes, norm_cfg, … ``dilations`` and
            ``conv_cfg`` are not supported, because the genotype defines the branches.

    Raises:
        ValueError: If the genotype does not fit the slots, there is no branch, or an option requests layers that this
            head does not have.
    """

    def __init__(
        self,
        branches: int = 4,
        reduced_channels: int | None = 256,
        genotype: GenotypeLike = None,
        merged: bool = True,
        normalise: bool = False,
        c1_in_channels: int = 0,
        c1_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        if branches < 1:
            raise ValueError(f'branches of SearchableDeepLabHead must be at least 1, got {branches}.')
        for option in ('dilations', 'conv_cfg'):
            if kwargs.get(option) is not None:
                raise ValueError(
                    f'{option} of SearchableDeepLabHead must not be set, got {kwargs[option]!r}: its branches are '
                    'searchable slots; set their number with branches and their operations with genotype.'
                )
        kwargs.pop('dilations', None)
        # mmseg's own branches are built with minimal size and then replaced.
        super().__init__(c1_in_channels, c1_channels, dilations=(1,) * branches, **kwargs)
        self.aspp_modules = SearchableASPP(
            branches,
            self.in_channels,
            self.channels,
            reduced_channels,
            genotype,
            merged,
            normalise,
            self.norm_cfg,
            self.act_cfg,
        )
        if not c1_in_channels:
            self.sep_bottleneck = nn.Identity()

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Classify the pixels.

        Args:
            inputs (Sequence[Tensor]): Levels of the backbone, each of shape (N, C, H, W), from fine to coarse.

        Returns:
            Tensor: Class scores of shape (N, classes, H, W), with the size of the first level (DeepLabV3+) or of the
            last level (DeepLabV3).

        Raises:
            ValueError: In training with a batch of one image, if the image pooling uses batch norm, which would then
                have a single value per channel.
        """
        if self.training and len(inputs[0]) == 1 and any(map(_needs_larger_batch, self.image_pool.modules())):
            raise ValueError(
                'The batch of SearchableDeepLabHead must have at least 2 images because of the batch norm in its image '
                'pooling, got 1: set batch_size to at least 2 and drop_last=True in the data loader, or use another '
                "norm_cfg such as dict(type='GN', num_groups=16)."
            )
        return super().forward(inputs)


def _needs_larger_batch(module: nn.Module) -> bool:
    """Return whether a layer normalises over the batch of this process only."""
    return isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
