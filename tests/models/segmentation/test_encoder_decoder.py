"""The contract of the segmentor behind a scene module, whole, in windows and with test-time augmentation."""

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg.models')

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from ruas_mm.search import Phase

CONFIGS = Path(__file__).parents[3] / 'configs' / 'segmentation'
TASK = {'decode.loss_ce', 'decode.acc_seg'}
SCENE = {'loss_scene_fidelity', 'loss_scene_smooth'}


def small_config(searchable=False, **options):
    """The model of the demo config with fewer channels."""
    config = Config.fromfile(CONFIGS / 'ruas_deeplab_demo.py')
    config.merge_from_dict(
        {
            'model': {
                'data_preprocessor': {'scene_module': {'stages': 2}},
                'backbone': {'base_channels': 8, 'stem_channels': 8},
                'decode_head': {
                    **{'in_channels': 64, 'channels': 8, 'reduced_channels': 8, 'num_classes': 4},
                    **{'c1_in_channels': 8, 'c1_channels': 4, 'dropout_ratio': 0.0},
                },
            }
        }
    )
    model = config.model
    if searchable:
        model.data_preprocessor.scene_module.genotype = model.decode_head.genotype = None
    model.update(options)
    return model


def build(**options):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(small_config(**options))
    model.init_weights()
    return model


def make_batch(sizes, seed=0):
    """Bright squares (class 1) on a dark ground (class 0)."""
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for index, (height, width) in enumerate(sizes):
        label = torch.zeros(1, height, width, dtype=torch.long)
        label[:, height // 4 : height // 2, width // 4 : width // 2] = 1
        noise = torch.randint(20, (3, height, width), generator=generator)
        images.append((noise + 40 * label).to(torch.uint8))
        metainfo = dict(img_shape=(height, width), ori_shape=(height, width), img_path=f'{index}.png')
        samples.append(SegDataSample(metainfo=metainfo))
        samples[-1].gt_sem_seg = PixelData(data=label)
    return {'inputs': images, 'data_samples': samples}


def losses_of(model, batch):
    return model(**model.data_preprocessor(copy.deepcopy(batch), True), mode='loss')


def predict(model, batch):
    with torch.no_grad():
        return model.eval().test_step(copy.deepcopy(batch))


# --- training ------------------------------------------------------------------------------------------------------


def test_scene_loss_is_scaled_by_lambda():
    batch = make_batch([(64, 64), (64, 64)])
    plain, once = losses_of(build(), batch), losses_of(build(scene_loss=dict()), batch)
    five = losses_of(build(scene_loss=dict(), scene_loss_weight=5.0), batch)
    assert set(plain) == TASK and set(once) == set(five) == TASK | SCENE
    for name in SCENE:
        assert once[name].item() > 0
        torch.testing.assert_close(five[name], 5 * once[name])
    torch.testing.assert_close(five['decode.loss_ce'], plain['decode.loss_ce'])


@pytest.mark.parametrize('searchable', [False, True])
def test_gradient_in_every_weight(searchable):
    model = build(searchable=searchable, scene_loss=dict(smoothness='neighbourhood')).train()
    loss, _ = model.parse_losses(losses_of(model, make_batch([(96, 120)] * 2)))
    loss.backward()
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name, weight in weights.items() if weight.grad is None or not weight.grad.isfinite().all()]
    assert not any('alphas' in name for name in weights)
    assert sum(weight.grad.abs().sum() for name, weight in weights.items() if 'scene_module' in name) > 0


def test_phases_of_a_search():
    model = build(searchable=True, scene_loss=dict()).train()
    batch = make_batch([(64, 64)] * 2)
    scene = list(model.scene_module.parameters())
    for phase, names in (
        (Phase.SCENE, SCENE),
        (Phase.TASK, TASK),
        (Phase.COUPLED, TASK),
        (Phase.JOINT, TASK | SCENE),
    ):
        model.search_phase = phase
        losses = losses_of(model, batch)
        assert set(losses) == names
        reaches = losses['decode.loss_ce' if 'decode.loss_ce' in losses else 'loss_scene_fidelity']
        gradients = torch.autograd.grad(reaches, [p for p in scene if p.requires_grad], allow_unused=True)
        assert any(gradient is not None for gradient in gradients) == (phase is not Phase.TASK)


def test_it_learns():
    model = build().train()
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-2))
    batch = make_batch([(64, 64)] * 4)
    losses = [model.train_step(copy.deepcopy(batch), optimizer)['decode.loss_ce'].item() for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]


# --- testing -------------------------------------------------------------------------------------------------------


def test_result_does_not_depend_on_batch_mates():
    model = build()
    batch = make_batch([(64, 48)] * 3)
    together = predict(model, batch)
    for index, sample in enumerate(together):
        (alone,) = predict(model, {key: values[index : index + 1] for key, values in batch.items()})
        torch.testing.assert_close(sample.seg_logits.data, alone.seg_logits.data)
        torch.testing.assert_close(sample.scene.feature, alone.scene.feature)


@pytest.mark.parametrize('size', [(1, 1), (5, 70), (33, 47)])
def test_any_size(size):
    (result,) = predict(build(), make_batch([size]))
    assert result.pred_sem_seg.data.shape == (1, *size) and result.scene.feature.shape == (3, *size)


def test_windows_are_cut_from_the_enhanced_image():
    """The scene module runs once, on the whole image, and one window as large as the image changes nothing."""
    batch = make_batch([(64, 96)])
    (whole,) = predict(build(), batch)
    (one,) = predict(build(test_cfg=dict(mode='slide', crop_size=(64, 96), stride=(64, 96))), batch)
    torch.testing.assert_close(one.seg_logits.data, whole.seg_logits.data)
    model = build(test_cfg=dict(mode='slide', crop_size=(48, 48), stride=(24, 24)))
    seen = []
    model.scene_module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    (slid,) = predict(model, batch)
    assert seen == [(1, 3, 64, 96)]
    assert slid.pred_sem_seg.data.shape == (1, 64, 96)
    torch.testing.assert_close(slid.scene.feature, whole.scene.feature)


def test_checkpoint_holds_the_scene_module(tmp_path):
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'model.pth')
    other = build()
    load_checkpoint(other, str(tmp_path / 'model.pth'), strict=True)
    batch = make_batch([(40, 40)])
    torch.testing.assert_close(predict(other, batch)[0].seg_logits.data, predict(model, batch)[0].seg_logits.data)


def test_augmented_test_keeps_the_scene_of_the_image():
    """mmseg goes on with the last version, here the mirrored one."""
    init_default_scope('mmseg')
    model = build()
    augmented = MODELS.build(dict(type='ruas_mm.SegTTAModel', module=small_config()))
    augmented.module.load_state_dict(model.state_dict())
    batch = make_batch([(64, 48)])
    image, sample = batch['inputs'][0], batch['data_samples'][0]
    mirrored = copy.deepcopy(sample)
    mirrored.set_metainfo(dict(flip=True, flip_direction='horizontal'))
    versions = {'inputs': [[image], [image.flip(-1)]], 'data_samples': [[sample], [mirrored]]}
    (plain,) = predict(model, batch)
    (mirror,) = predict(model, {'inputs': [image.flip(-1)], 'data_samples': [mirrored]})
    with torch.no_grad():
        (result,) = augmented.eval().test_step(copy.deepcopy(versions))
    torch.testing.assert_close(result.scene.feature, plain.scene.feature)
    mean = (plain.seg_logits.data.softmax(0) + mirror.seg_logits.data.softmax(0)) / 2
    assert torch.equal(result.pred_sem_seg.data.squeeze(), mean.argmax(0))
