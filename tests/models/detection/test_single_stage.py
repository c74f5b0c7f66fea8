"""The contract of the detector behind a scene module, and of the step that trains the scene module alone."""

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet.models')

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData

CONFIGS = Path(__file__).parents[3] / 'configs' / 'detection'
CHANNELS = (8, 16, 32, 64)


def small_config(genotype=None, **options):
    """The model of the demo config with fewer channels."""
    config = Config.fromfile(CONFIGS / 'ruas_ssd_demo.py')
    config.merge_from_dict(
        {
            'model': {
                'data_preprocessor': {'scene_module': {'stages': 2}},
                'backbone': {'base_channels': 8, 'stem_channels': 8},
                'neck': {'in_channels': CHANNELS, 'out_channels': (*CHANNELS, 16, 16)},
                'bbox_head': {'in_channels': (*CHANNELS, 16, 16)},
                'test_cfg': {'score_thr': 0.0, 'max_per_img': 20},
            }
        }
    )
    model = config.model
    if genotype is not None:
        for part in (model.data_preprocessor.scene_module, model.neck, model.bbox_head):
            part.genotype = None if genotype == 'searchable' else genotype
    model.update(options)
    return model


def build(**options):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(small_config(**options))
    model.init_weights()
    return model


def make_batch(sizes, boxes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for index, (height, width) in enumerate(sizes):
        images.append(torch.randint(60, (3, height, width), dtype=torch.uint8, generator=generator))
        sample = DetDataSample(
            metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), img_id=index)
        )
        corner = torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.3, 0.2, 0.9, 0.8]])[:boxes]
        sample.gt_instances = InstanceData(
            bboxes=corner * torch.tensor([width, height, width, height]), labels=torch.zeros(boxes, dtype=torch.long)
        )
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


def losses_of(model, batch):
    return model(**model.data_preprocessor(batch, True), mode='loss')


def total(losses):
    flat = [loss for value in losses.values() for loss in (value if isinstance(value, (list, tuple)) else [value])]
    return sum(loss.sum() for loss in flat)


# --- training ------------------------------------------------------------------------------------------------------


def test_scene_loss_is_scaled_by_lambda():
    batch = make_batch([(64, 64), (64, 64), (33, 47)])
    plain = losses_of(build(), batch)
    assert set(plain) == {'loss_cls', 'loss_bbox'}
    once = losses_of(build(scene_loss=dict()), batch)
    five = losses_of(build(scene_loss=dict(), scene_loss_weight=5.0), batch)
    assert set(once) == set(five) == {'loss_cls', 'loss_bbox', 'loss_scene_fidelity', 'loss_scene_smooth'}
    for name in ('loss_scene_fidelity', 'loss_scene_smooth'):
        assert once[name].item() > 0
        torch.testing.assert_close(five[name], 5 * once[name])
    for name in ('loss_cls', 'loss_bbox'):
        for mine, other in zip(five[name], plain[name], strict=True):
            torch.testing.assert_close(mine, other)


def test_scene_loss_is_the_mean_over_images():
    """Whatever the sizes of the batch mates: a mixed batch weighs each image alike."""
    model = build(scene_loss=dict())
    batch = make_batch([(64, 64), (33, 47), (64, 64)])
    together = losses_of(model, batch)
    alone = [losses_of(model, {key: values[i : i + 1] for key, values in batch.items()}) for i in range(3)]
    for name in ('loss_scene_fidelity', 'loss_scene_smooth'):
        torch.testing.assert_close(together[name], sum(one[name] for one in alone) / 3)


@pytest.mark.parametrize('smoothness', ['neighbourhood', 'rtv'])
@pytest.mark.parametrize('genotype', ['ruas_darkface_vgg16', 'searchable'])
def test_gradient_in_every_weight(genotype, smoothness):
    model = build(genotype=genotype, scene_loss=dict(smoothness=smoothness)).train()
    total(losses_of(model, make_batch([(128, 128), (96, 120)]))).backward()
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith('data_preprocessor.scene_module.') for name in weights)
    without = [name for name, weight in weights.items() if weight.grad is None or not weight.grad.isfinite().all()]
    assert not without
    assert not any('alphas' in name for name in weights)
    scene = [weight.grad.abs().sum() for name, weight in weights.items() if 'scene_module' in name]
    assert sum(scene) > 0


def test_it_learns():
    """A few steps on one batch lower the loss, and the scene module takes part."""
    model = build(scene_loss=dict()).train()
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-3))
    scene = copy.deepcopy(model.data_preprocessor.scene_module.state_dict())
    batch = make_batch([(96, 96)] * 2)
    history = [model.train_step(batch, optimizer)['loss'].item() for _ in range(8)]
    assert history[-1] < 0.8 * history[0]
    after = model.data_preprocessor.scene_module.state_dict()
    assert any(not torch.equal(scene[name], value) for name, value in after.items())


@pytest.mark.parametrize('sizes', [[(64, 64)], [(64, 64), (40, 64)]])
def test_images_without_objects_train(sizes):
    model = build(scene_loss=dict()).train()
    losses = losses_of(model, make_batch(sizes, boxes=0))
    loss = total(losses)
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('change', [dict(scene_module=None), dict(enabled=False)])
def test_scene_loss_without_scene_module(change):
    config = small_config(scene_loss=dict())
    config.data_preprocessor.update(change)
    init_default_scope('mmdet')
    with pytest.raises(ValueError, match=r'^The scene loss needs the scene module.*\.$'):
        losses_of(MODELS.build(config), make_batch([(64, 64)]))


@pytest.mark.parametrize('genotype', ['ruas_darkface_vgg16', 'searchable'])
def test_autocast(genotype):
    """Every convolution of stride 2 sees a map at least two pixels wide.

    On narrower ones, oneDNN's bfloat16 gradient of the weight holds uninitialised memory (torch 2.13 on the CPU), in
    any model: that of ``conv2d(ones(2, 16, 1, 1), zeros(16, 16, 3, 3), stride=2, padding=1)`` in bfloat16 is wrong in
    50 of 50 calls with ``MALLOC_PERTURB_=128`` in the environment; in float32, or without oneDNN, it is always right.
    """
    model = build(genotype=genotype, scene_loss=dict()).train()
    widths = []
    for module in model.neck.extra:
        if module.stride in (2, (2, 2)):
            module.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[-1]))
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, make_batch([(128, 128), (70, 100)]))
    assert min(widths) >= 2
    loss = total(losses)
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# --- testing -------------------------------------------------------------------------------------------------------


def detections(results):
    return [(r.pred_instances.bboxes, r.pred_instances.scores, r.pred_instances.labels) for r in results]


@pytest.mark.parametrize('rescale', [True, False])
def test_detections_do_not_depend_on_batch_mates(rescale):
    """Padding is not the image: rivals' results change with the batch."""
    model = build().eval()
    sizes = [(64, 64), (33, 47), (64, 96), (33, 47), (100, 40)]
    batch = make_batch(sizes)
    with torch.no_grad():
        data = model.data_preprocessor(batch)
        together = detections(model.predict(data['inputs'], data['data_samples'], rescale=rescale))
        for index in range(len(sizes)):
            one = model.data_preprocessor({key: values[index : index + 1] for key, values in batch.items()})
            ((boxes, scores, labels),) = detections(model.predict(one['inputs'], one['data_samples'], rescale=rescale))
            assert len(scores) > 0
            torch.testing.assert_close(together[index][1], scores, rtol=0, atol=1e-4)
            torch.testing.assert_close(together[index][0], boxes, rtol=1e-4, atol=1e-3)
            assert torch.equal(together[index][2], labels)


@pytest.mark.parametrize('size', [(1, 1), (33, 47), (31, 129)])
@pytest.mark.parametrize('genotype', ['ruas_darkface_vgg16', 'searchable'])
def test_odd_sizes(size, genotype):
    model = build(genotype=genotype).eval()
    with torch.no_grad():
        (result,) = model.test_step(make_batch([size]))
    assert result.scene.feature.shape == (3, *size)
    found = result.pred_instances
    assert found.scores.isfinite().all() and found.bboxes.isfinite().all()
    limit = torch.tensor([size[1], size[0]] * 2)
    assert (found.bboxes >= 0).all() and (found.bboxes <= limit).all()


def test_searchable_and_plain_predict():
    for genotype in ('searchable', 'ruas_darkface_vgg16'):
        model = build(genotype=genotype).eval()
        (result,) = model.test_step(make_batch([(64, 64)]))
        assert result.pred_instances.scores.isfinite().all()


@pytest.mark.parametrize('genotype', ['ruas_darkface_vgg16', 'searchable'])
def test_save_and_load(tmp_path, genotype):
    """Checkpoints hold everything, architecture parameters included."""
    first = build(genotype=genotype).eval()
    batch = make_batch([(64, 64), (33, 47)])
    torch.save({'state_dict': first.state_dict(), 'meta': {}}, tmp_path / 'model.pth')
    torch.manual_seed(1)
    second = MODELS.build(small_config(genotype=genotype)).eval()
    load_checkpoint(second, str(tmp_path / 'model.pth'), strict=True)
    with torch.no_grad():
        for mine, other in zip(detections(second.test_step(batch)), detections(first.test_step(batch)), strict=True):
            for a, b in zip(mine, other, strict=True):
                assert torch.equal(a, b)


@pytest.mark.cuda
def test_cuda_amp():
    """Half precision on the GPU: finite losses, and the division by t in float32."""
    model = build(scene_loss=dict()).cuda().train()
    with torch.autocast('cuda', torch.float16):
        losses = losses_of(model, make_batch([(64, 64), (33, 47)]))
    assert total(losses).isfinite()


# --- the first step of hierarchical training -----------------------------------------------------------------------


def build_pretrainer(**change):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    preprocessor = {**small_config().data_preprocessor, **change}
    return MODELS.build(
        dict(type='ruas_mm.ScenePretrainer', data_preprocessor=preprocessor, scene_loss=dict(smooth_weight=0.1))
    )


def test_pretrainer_needs_images_alone():
    """Unlabelled images: samples carry nothing but what every image has."""
    model = build_pretrainer().train()
    batch = make_batch([(40, 48), (33, 47)])
    batch['data_samples'] = [DetDataSample(metainfo=sample.metainfo) for sample in batch['data_samples']]
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-2))
    before = [parameter.clone() for parameter in model.parameters()]
    history = [model.train_step(batch, optimizer) for _ in range(5)]
    assert set(history[0]) == {'loss', 'loss_scene_fidelity', 'loss_scene_smooth'}
    assert history[-1]['loss'] < history[0]['loss']
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_checkpoint_of_the_first_step_starts_the_second(tmp_path):
    first = build_pretrainer()
    torch.save({'state_dict': first.state_dict(), 'meta': {}}, tmp_path / 'first.pth')
    torch.manual_seed(1)
    second = MODELS.build(small_config())
    assert set(first.state_dict()) <= set(second.state_dict())
    load_checkpoint(second, str(tmp_path / 'first.pth'))
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_pretrainer_shows_the_scene():
    model = build_pretrainer().eval()
    (result,) = model.test_step(make_batch([(33, 47)]))
    assert result.scene.feature.shape == (3, 33, 47)


def test_pretrainer_errors():
    model = build_pretrainer()
    with pytest.raises(ValueError, match="mode 'fit'.*'loss'"):
        model(torch.zeros(1, 3, 8, 8), mode='fit')
    with pytest.raises(ValueError, match='needs the scene module'):
        losses_of(build_pretrainer(scene_module=None), make_batch([(8, 8)]))
