"""The data preprocessor fits stock segmentors of mmseg: only its type and the scene module change."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg.models')

import mmseg
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

CONFIGS = Path(mmseg.__file__).parent / '.mim' / 'configs'
BN = dict(type='BN')  # what mmengine's runner makes of SyncBN in a lone process

# Stock config -> what makes the test quick; none of it touches the data preprocessor.
SMALL_RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=BN)
SMALL_HEADS = dict(
    pretrained=None,
    backbone=SMALL_RESNET,
    decode_head=dict(in_channels=64, channels=16, norm_cfg=BN),
    auxiliary_head=dict(in_channels=32, channels=8, norm_cfg=BN),
)
STOCK = {
    'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py': SMALL_HEADS,
    'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py': SMALL_HEADS,
    'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py': dict(
        backbone=dict(embed_dims=8, num_layers=[1, 1, 1, 1], init_cfg=None),
        decode_head=dict(in_channels=[8, 16, 40, 64], channels=16, norm_cfg=BN),
        test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(48, 48)),  # sliding already, in larger windows
    ),
}


def make_batch(sizes):
    images, samples = [], []
    for size in sizes:
        images.append(torch.randint(60, (3, *size), dtype=torch.uint8))
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_sem_seg = PixelData(data=torch.randint(19, (1, *size)))
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


@pytest.fixture(params=STOCK)
def segmentor(request, seeded):
    init_default_scope('mmseg')
    config = Config.fromfile(CONFIGS / request.param)
    config.merge_from_dict({'model': STOCK[request.param]})
    config.model.data_preprocessor.size = (96, 96)  # the crop's size, which is to be small here too
    assert config.model.data_preprocessor.type == 'SegDataPreProcessor'
    config.model.data_preprocessor.update(type='ruas_mm.RUASSegDataPreprocessor', scene_module=dict())
    return MODELS.build(config.model)


def test_one_step_of_training_and_of_testing(segmentor):
    optimizer = OptimWrapper(torch.optim.SGD(segmentor.parameters(), lr=1e-2), clip_grad=dict(max_norm=1.0))
    scene = [parameter.clone() for parameter in segmentor.data_preprocessor.scene_module.parameters()]
    losses = segmentor.train().train_step(make_batch([(96, 96), (80, 96)]), optimizer)
    assert losses and all(torch.as_tensor(loss).isfinite().all() for loss in losses.values())
    after = list(segmentor.data_preprocessor.scene_module.parameters())
    # The segmentor's loss reached the scene module: its weights were part of the step.
    assert any(not torch.equal(old, new) for old, new in zip(scene, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in segmentor.parameters())

    size = (100, 130)  # more than one window
    with torch.no_grad():
        (result,) = segmentor.eval().test_step(make_batch([size]))
    assert result.pred_sem_seg.data.shape == (1, *size)
    assert result.seg_logits.data.isfinite().all()
    assert result.scene.feature.shape == (3, *size)
