"""``normalise=True`` in every searchable module: the scale follows the initialisation, and one kernel is merged."""

import pytest
import torch

from ruas_mm import SceneModule
from ruas_mm.search import MixedOp


def neck():
    pytest.importorskip('mmdet.models', exc_type=ImportError)
    from ruas_mm.models.detection import SearchableSSDNeck

    return SearchableSSDNeck((4, 8), (4, 8, 6), (2,), (1,), (), normalise=True)


def head():
    pytest.importorskip('mmdet.models', exc_type=ImportError)
    from ruas_mm.models.detection import SearchableSSDHead

    anchors = dict(
        type='mmdet.SSDAnchorGenerator', strides=[8, 16], ratios=([2], [2]), min_sizes=[8, 16], max_sizes=[16, 32]
    )
    return SearchableSSDHead(
        num_classes=1,
        in_channels=(4, 8),
        anchor_generator=anchors,
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
        normalise=True,
    )


def deeplab_head():
    pytest.importorskip('mmseg.models', exc_type=ImportError)
    from ruas_mm.models.segmentation import SearchableDeepLabHead

    return SearchableDeepLabHead(
        branches=2,
        reduced_channels=None,
        in_channels=4,
        channels=4,
        num_classes=2,
        in_index=0,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True),
        normalise=True,
    )


@pytest.mark.parametrize('build', [neck, head, deeplab_head])
def test_the_scale_is_the_mean_norm_of_the_initialised_kernels(build):
    module = build()
    mixed = [part for part in module.modules() if isinstance(part, MixedOp)]
    with torch.no_grad():
        for part in mixed:
            part.scale.fill_(-1)
    module.init_weights()
    assert mixed
    for part in mixed:
        norms = torch.stack([operation.weight.flatten(1).norm(dim=1) for operation in part.operations])
        torch.testing.assert_close(part.scale, norms.mean(dim=0))


def test_a_normalised_scene_module_starts_as_an_ordinary_one(seeded):
    """The identity counts as part of each kernel, so that the cell still starts near the identity."""
    y = 0.2 * torch.rand(1, 3, 16, 16)
    ordinary, normalised = SceneModule(genotype=None)(y), SceneModule(genotype=None, normalise=True)(y)
    for ours, expected in zip(normalised.illuminations, ordinary.illuminations, strict=True):
        assert (ours - expected).abs().max() < 0.1
