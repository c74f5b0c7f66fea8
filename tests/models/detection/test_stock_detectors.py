"""The data preprocessor fits stock detectors of mmdet: only its type and the scene module change."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet.models')

import mmdet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'

# Stock config -> what makes the test quick; none of it touches the data preprocessor.
SMALL_RESNET = dict(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
STOCK = {
    'retinanet/retinanet_r50_fpn_1x_coco.py': dict(
        backbone=SMALL_RESNET,
        neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
        bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
    ),
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': dict(
        backbone=SMALL_RESNET,
        neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=16)),
    ),
    'yolox/yolox_tiny_8xb8-300e_coco.py': dict(
        backbone=dict(widen_factor=0.125),
        neck=dict(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1),
        bbox_head=dict(in_channels=16, feat_channels=16),
    ),
}


def make_batch(sizes):
    images, samples = [], []
    for height, width in sizes:
        images.append(torch.randint(60, (3, height, width), dtype=torch.uint8))
        sample = DetDataSample(
            metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4.0, 4.0, width / 2, height / 2]]), labels=torch.zeros(1, dtype=torch.long)
        )
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


@pytest.fixture(params=STOCK)
def detector(request, seeded):
    init_default_scope('mmdet')
    config = Config.fromfile(CONFIGS / request.param)
    config.merge_from_dict({'model': STOCK[request.param]})
    before = dict(config.model.data_preprocessor)
    config.model.data_preprocessor.update(type='ruas_mm.RUASDetDataPreprocessor', scene_module=dict())
    assert before['type'] == 'DetDataPreprocessor'
    MessageHub.get_current_instance().update_info('iter', 0)  # YOLOX's random resizing asks the runner's counter
    return MODELS.build(config.model)


def test_one_step_of_training_and_of_testing(detector):
    optimizer = OptimWrapper(torch.optim.SGD(detector.parameters(), lr=1e-4), clip_grad=dict(max_norm=1.0))
    scene = [parameter.clone() for parameter in detector.data_preprocessor.scene_module.parameters()]
    losses = detector.train().train_step(make_batch([(64, 64), (48, 60)]), optimizer)
    assert losses and all(torch.as_tensor(loss).isfinite().all() for loss in losses.values())
    after = list(detector.data_preprocessor.scene_module.parameters())
    # The detector's loss reached the scene module: its weights were part of the step.
    assert any(not torch.equal(old, new) for old, new in zip(scene, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in detector.parameters())

    sizes = [(64, 64), (33, 47)]
    with torch.no_grad():
        results = detector.eval().test_step(make_batch(sizes))
    for result, size in zip(results, sizes, strict=True):
        assert result.pred_instances.bboxes.shape[-1] == 4
        assert result.pred_instances.scores.isfinite().all()
        assert result.scene.feature.shape == (3, *size)


def test_bright_images_keep_ddp_happy(detector):
    """With the gate and no dark image, each weight of the scene module still has a gradient."""
    detector.data_preprocessor.brightness_gate = 0.01
    data = detector.train().data_preprocessor(make_batch([(64, 64)]), True)
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    assert all(p.grad is not None for p in detector.data_preprocessor.scene_module.parameters())
