"""Every config of the suite loads, names only what exists, builds, and runs where a CPU can."""

from pathlib import Path

import mmengine.runner  # noqa: F401 - as the tools do, so that its loops, samplers and processors are registered
import pytest
import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement

import ruas_mm  # noqa: F401 - cures what would else keep a host from being imported

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.glob('**/[!_]*.py')) if '_base_' not in path.parts}
HOSTS = {'detection': 'mmdet', 'segmentation': 'mmseg', 'enhance': None}

# Key of a dict, or of the list that holds it -> where its ``type`` is looked up.
REGISTRIES = {
    'anchor_generator': registry.TASK_UTILS,
    'assigner': registry.TASK_UTILS,
    'bbox_coder': registry.TASK_UTILS,
    'custom_hooks': registry.HOOKS,
    'dataset': registry.DATASETS,
    'default_hooks': registry.HOOKS,
    'log_processor': registry.LOG_PROCESSORS,
    'metrics': registry.METRICS,
    'model': registry.MODELS,
    'optim_wrapper': registry.OPTIM_WRAPPERS,
    'optimizer': registry.OPTIMIZERS,
    'param_scheduler': registry.PARAM_SCHEDULERS,
    'pipeline': registry.TRANSFORMS,
    'transforms': registry.TRANSFORMS,
    'tta_model': registry.MODELS,
    'tta_pipeline': registry.TRANSFORMS,
    'test_cfg': registry.LOOPS,
    'test_evaluator': registry.METRICS,
    'train_cfg': registry.LOOPS,
    'val_cfg': registry.LOOPS,
    'val_evaluator': registry.METRICS,
    'vis_backends': registry.VISBACKENDS,
    'visualizer': registry.VISUALIZERS,
}
FUNCTIONS = {'nms', 'soft_nms'}  # of mmcv, called by name
# What mmengine's runner and the tools read; the other entries of a config only help to write these.
READ = {
    *('model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg'),
    *('val_evaluator', 'test_evaluator', 'optim_wrapper', 'param_scheduler', 'default_hooks', 'custom_hooks'),
    *('log_processor', 'visualizer', 'tta_model', 'tta_pipeline'),
}


def load(name):
    host = 'mmagic' if Path(name).stem.endswith('_mmagic') else HOSTS.get(Path(name).parts[0])
    if host:
        pytest.importorskip(f'{host}.models', exc_type=ImportError)
    config = Config.fromfile(CONFIGS[name])
    init_default_scope(config.get('default_scope') or 'mmengine')
    return config


def named_types(node, key=None, path=''):
    """Yield the path of each ``type`` of a config, the name, and the registry that it is looked up in."""
    if isinstance(node, dict):
        name = node.get('type')
        if isinstance(name, str) and not (key == 'nms' and name in FUNCTIONS):
            where = REGISTRIES.get(key, registry.MODELS if path.startswith(('model', 'tta_model')) else None)
            if 'metrics' in node:
                where = registry.EVALUATOR
            if key == 'sampler':
                where = registry.TASK_UTILS if path.startswith('model') else registry.DATA_SAMPLERS
            yield path, name, where
        for child, value in node.items():
            inside = key if key == 'default_hooks' else child  # a hook's own key is a name, not a kind
            yield from named_types(value, inside, f'{path}.{child}'.strip('.'))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from named_types(value, key, f'{path}[{index}]')


def meta_model(config):
    """The model without memory or time for its weights."""
    with torch.device('meta'):
        return registry.MODELS.build(config.model)


def test_there_are_configs():
    assert len(CONFIGS) > 5


@pytest.mark.parametrize('name', CONFIGS)
def test_names_only_what_exists(name):
    config = load(name)
    found = list(named_types({key: config[key] for key in READ & set(config)}))
    assert any(path == 'model' for path, _, _ in found)
    assert not [(path, kind) for path, kind, where in found if where is None]  # or REGISTRIES lacks a key
    missing = []
    for path, kind, where in found:
        with where.switch_scope_and_registry(None) as scoped:  # as mmengine builds
            missing += [] if scoped.get(kind) else [(path, kind)]
    assert not missing


@pytest.mark.parametrize('name', CONFIGS)
def test_parts_build(name):
    """Options are those that the parts take: data sets (unread), pipelines, metrics, loops' settings."""
    config = load(name)
    for split in ('train', 'val', 'test'):
        loader = config.get(f'{split}_dataloader')
        assert (loader is None) == (config.get(f'{split}_cfg') is None)
        if loader is not None:
            dataset = loader.dataset.dataset if loader.dataset.type == 'ruas_mm.split_dataset' else loader.dataset
            assert registry.DATASETS.build({**dataset, 'lazy_init': True}).pipeline.transforms
            assert not (loader.get('persistent_workers') and not loader.num_workers)  # torch refuses that
        if config.get(f'{split}_evaluator') is not None:
            evaluator = config[f'{split}_evaluator']
            for part in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
                (registry.EVALUATOR if 'metrics' in part else registry.METRICS).build(part)
    for hook in config.get('custom_hooks', []):
        registry.HOOKS.build(hook)
    for step in config.get('tta_pipeline', []):
        registry.TRANSFORMS.build(step)


@pytest.mark.parametrize('name', CONFIGS)
def test_model_builds(name):
    model = meta_model(load(name))
    assert any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize('name', CONFIGS)
def test_optimizer_builds(name):
    """Each weight is in it once, and custom keys name something."""
    config = load(name)
    model = meta_model(config)
    wrapper = build_optim_wrapper(model, {**config.optim_wrapper, 'type': 'mmengine.OptimWrapper'})
    parameters = [p for group in wrapper.optimizer.param_groups for p in group['params']]
    assert len(parameters) == len({id(p) for p in parameters})
    assert {id(p) for p in model.parameters() if p.requires_grad} <= {id(p) for p in parameters}
    keys = (config.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
    if model.data_preprocessor is not None and getattr(model.data_preprocessor, 'scene_module', None) is not None:
        assert all(any(key in name for name, _ in model.named_parameters()) for key in keys)


def test_pretraining_uses_the_rate_it_names():
    """``base_lr`` of a config is what its scene module, all there is to train, gets."""
    pretraining = [name for name in CONFIGS if name.endswith('_pretrain.py')]
    assert pretraining
    for name in pretraining:
        config = load(name)
        wrapper = build_optim_wrapper(meta_model(config), config.optim_wrapper)
        assert {group['lr'] for group in wrapper.optimizer.param_groups} == {config.base_lr}


# --- one step on a random image ------------------------------------------------------------------------------------

DETECTION = [name for name in CONFIGS if name.startswith('detection')]
# Searchable VGG models hold ten times the weights of derived ones, and ResNet-101 and -152 differ from the ResNet-50
# config in the depth of mmdet's own backbone alone: building them (above) is what is ours to test.
LIMIT = 70e6


def detection_batch(config, model):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
    # Levels of SSD300 and SSD512 without padding fit their own input size only.
    fixed = getattr(generator, 'input_size', None)
    side = 96 if fixed is None else fixed
    sample = DetDataSample(
        metainfo=dict(img_shape=(side, side), ori_shape=(side, side), scale_factor=(1.0, 1.0), img_id=0)
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.3, 0.2, 0.9, 0.8]]) * side, labels=torch.zeros(2).long()
    )
    image = torch.randint(60, (3, side, side), dtype=torch.uint8)
    # One of the large images is enough; batch normalisation of a 1x1 map needs two.
    count = 2 if fixed is None else 1
    return {'inputs': [image, image.flip(-1)][:count], 'data_samples': [sample, sample.clone()][:count]}


@pytest.mark.parametrize('name', DETECTION)
def test_detector_runs(name, seeded):
    """One training step's losses and gradients, and one prediction: the plain baselines included."""
    config = load(name)
    weights = sum(parameter.numel() for parameter in meta_model(config).parameters())
    if weights > LIMIT:
        pytest.skip(f'{weights / 1e6:.0f} million weights: built only, see above')
    model = registry.MODELS.build(config.model)  # torch's own initialisation is quicker and will do
    batch = detection_batch(config, model)
    data = model.train().data_preprocessor(batch, True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite() and all(value.isfinite() for value in log.values())
    loss.backward()
    scene = getattr(model.data_preprocessor, 'scene_module', None)
    for parameter in scene.parameters() if scene is not None else ():
        assert parameter.grad is None if not parameter.requires_grad else parameter.grad.isfinite().all()
    model.zero_grad()
    with torch.no_grad():
        result = model.eval().test_step({key: values[:1] for key, values in batch.items()})[0]
    assert ('scene' in result) == (scene is not None)
    if 'pred_instances' in result:
        assert result.pred_instances.scores.isfinite().all()
    else:
        assert config.model.type == 'ruas_mm.ScenePretrainer'


SEGMENTATION = [name for name in CONFIGS if name.startswith('segmentation')]


@pytest.mark.parametrize('name', SEGMENTATION)
def test_segmentor_runs(name, seeded):
    """One training step's losses and gradients, and one prediction: the plain baselines included."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    config = load(name)
    config.model.data_preprocessor.update(size=None, size_divisor=1)  # not to the crop's size, 512x512
    model = registry.MODELS.build(config.model)
    size = (64, 80)
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.randint(config.model.decode_head.num_classes, (1, *size)))
    image = torch.randint(60, (3, *size), dtype=torch.uint8)
    batch = {'inputs': [image, image.flip(-1)], 'data_samples': [sample, sample.clone()]}
    data = model.train().data_preprocessor(batch, True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite() and all(value.isfinite() for value in log.values())
    loss.backward()
    scene = getattr(model.data_preprocessor, 'scene_module', None)
    for parameter in scene.parameters() if scene is not None else ():
        assert parameter.grad is None if not parameter.requires_grad else parameter.grad.isfinite().all()
    model.zero_grad()
    with torch.no_grad():
        result = model.eval().test_step({key: values[:1] for key, values in batch.items()})[0]
    assert ('scene' in result) == (scene is not None)
    assert result.pred_sem_seg.data.shape == (1, *size) and result.seg_logits.data.isfinite().all()


@pytest.mark.parametrize(
    'name', [name for name in CONFIGS if name.startswith('enhance') and not name.endswith('_mmagic.py')]
)
def test_enhancer_runs(name, seeded):
    """One training step's losses and gradients, and one prediction."""
    config = load(name)
    model = registry.MODELS.build(config.model)
    batch = {
        'inputs': [torch.randint(60, (3, 24, 32), dtype=torch.uint8)],
        'data_samples': [BaseDataElement(metainfo=dict(img_id='1.png'))],
    }
    data = model.train().data_preprocessor(batch, True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite() and all(value.isfinite() for value in log.values())
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():
        (result,) = model.eval().test_step(batch)
    assert result.enhanced.shape == (3, 24, 32) and result.enhanced.isfinite().all()
    assert ('noise_score' in result) == (config.model.variant == 'A')


def test_baselines_differ_from_ours_by_the_method_alone():
    """A plain SSD and its RUAS partner share everything but scene module, its loss and genotype."""
    pairs = [(name, name.replace('/ssd', '/ruas_ssd')) for name in DETECTION if '/ssd' in name]
    assert pairs
    for plain, ours in pairs:
        plain, ours = load(plain), load(ours)
        assert plain.model.data_preprocessor.scene_module is None
        for config in (plain, ours):
            config.pop('work_dir', None)
            config.model.data_preprocessor.pop('scene_module', None)
            config.model.pop('scene_loss', None)
            for part in (config.model.neck, config.model.bbox_head):
                part.pop('genotype', None)
        theirs, mine = plain.to_dict(), ours.to_dict()
        for key in {*theirs, *mine} - {'genotype', 'scene_genotype', 'stages'}:
            assert theirs.get(key) == mine.get(key), key


def test_segmentation_baselines_differ_from_ours_by_the_method_alone():
    """A plain DeepLabV3+ is mmseg's own model; data, budget and sizes are those of its RUAS partner."""
    pairs = [(name, name.replace('/deeplab', '/ruas_deeplab')) for name in SEGMENTATION if '/deeplab' in name]
    assert pairs
    for plain, ours in pairs:
        plain, ours = load(plain), load(ours)
        assert plain.model.data_preprocessor.pop('scene_module') is None
        ours.model.data_preprocessor.pop('scene_module')
        assert plain.model.pop('type') == 'mmseg.EncoderDecoder' and ours.model.pop('type')
        heads = plain.model.pop('decode_head'), ours.model.pop('decode_head')
        assert heads[0].pop('type') == 'mmseg.DepthwiseSeparableASPPHead' and heads[1].pop('type')
        assert list(heads[0].pop('dilations')) == [1, 6, 12, 18]
        for key in ('branches', 'reduced_channels', 'genotype'):
            heads[1].pop(key)
        assert heads[0] == heads[1]
        theirs, mine = plain.to_dict(), ours.to_dict()
        for key in {*theirs, *mine} - {'head'}:
            assert theirs.get(key) == mine.get(key), key
