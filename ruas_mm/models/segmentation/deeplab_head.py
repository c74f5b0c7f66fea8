"""DeepLab's head with searchable feature conversion."""

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
    """Parallel branches on one feature map, the operation of each a slot ``deeplab_head.branch_i``.

    With 1x1 and 3x3 convolutions of dilation 6, 12 and 18 it is DeepLab's atrous spatial pyramid pooling without the
    image pooling.

    Args:
        branches (int): Number of branches.
        in_channels (int): Channels of the feature map.
        channels (int): Channels of each branch's output.
        reduced_channels (int, optional): Channels after a 1x1 convolution before the branches; None leaves it out.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None makes it searchable.
        merged (bool): Whether mixed operations add their kernels; see :class:`ruas_mm.search.MixedOp`.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.
        norm_cfg (dict, optional): Normalisation after each convolution.
        act_cfg (dict): Activation after it.
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
            list[Tensor]: One map of shape (N, C', H, W) a branch.
        """
        if self.reduce is not None:
            x = self.reduce(x)
        parts = zip(self.operations, self.norms, self.slots.probs(), strict=True)
        return [self.act(norm(operation(x, probs))) for operation, norm, probs in parts]


class SearchableDeepLabHead(DepthwiseSeparableASPPHead):
    """The head of DeepLabV3+ or DeepLabV3 whose feature-conversion branches are searched (paper §5.3).

    Slots are ``deeplab_head.branch_1`` …, each chosen from the ten high-level operations; the image pooling and the
    decoder are mmseg's own. A 1x1 convolution first reduces the channels, searched or not: ten candidates a branch on
    the 2048 channels of a ResNet-50 would have 813 million weights, on 256 they have 51 million.

    Args:
        branches (int): Number of branches beside the image pooling.
        reduced_channels (int, optional): Channels that the branches see; None for those of the backbone.
        genotype (Genotype | Mapping | str | Path, optional): The derived architecture; None makes it searchable.
        merged (bool): Whether mixed operations add their kernels; see :class:`ruas_mm.search.MixedOp`.
        normalise (bool): Whether mixed operations normalise their kernels; see :class:`ruas_mm.search.MixedOp`.
        c1_in_channels (int): Channels of the first level, which DeepLabV3+ refines its result with; 0 for DeepLabV3,
            which has no decoder.
        c1_channels (int): Channels that the first level is reduced to.
        **kwargs (Any): Options of mmseg's heads: in_channels, channels, num_classes, norm_cfg, … ``dilations`` and
            ``conv_cfg`` are refused: the genotype says what the branches are.

    Raises:
        ValueError: If the genotype does not fit the slots, there is no branch, or an option asks for layers that this
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
            raise ValueError(f'SearchableDeepLabHead needs at least one branch, not branches={branches}.')
        for option in ('dilations', 'conv_cfg'):
            if kwargs.get(option) is not None:
                raise ValueError(
                    f'SearchableDeepLabHead has no {option}={kwargs[option]!r}: its branches are slots; give their '
                    'number as branches and what they are as genotype.'
                )
        kwargs.pop('dilations', None)
        # mmseg's own branches, as small as they can be, give their places to ours.
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
            Tensor: Class scores of shape (N, classes, H, W), in the size of the first level (DeepLabV3+) or of the
            last (DeepLabV3).

        Raises:
            ValueError: In training, if the batch norm of the image pooling has one value a channel to learn from.
        """
        if self.training and len(inputs[0]) == 1 and any(map(_needs_mates, self.image_pool.modules())):
            raise ValueError(
                "SearchableDeepLabHead was given a batch of one image, of which its image pooling's batch norm cannot "
                'learn: set batch_size to at least 2 and drop_last=True in the data loader, or another norm_cfg such '
                "as dict(type='GN', num_groups=16)."
            )
        return super().forward(inputs)


def _needs_mates(module: nn.Module) -> bool:
    """Whether a layer normalises over the batch of this process alone."""
    return isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
