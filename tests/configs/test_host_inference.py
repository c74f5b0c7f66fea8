"""Our configs in the inference interfaces of the hosts, which pass images without labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

pytest.importorskip('mmdet.models', reason='mmdet or mmcv is missing', exc_type=ImportError)
pytest.importorskip('mmseg.models', reason='mmseg or mmcv is missing', exc_type=ImportError)

from mmcv.transforms import Compose
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.datasets.transforms import RandomShift
from mmdet.registry import TRANSFORMS
from mmdet.utils import get_test_pipeline_cfg
from mmseg.apis import MMSegInferencer, inference_model, init_model

ROOT = Path(__file__).parents[2] / 'configs'
# One config of each kind of data set and pipeline.
DETECTION = ['ruas_ssd_darkface', 'ruas_ssd_demo', 'ruas_ssd300_voc', 'ruas_ssd_exdark']
SEGMENTATION = ['ruas_deeplab_acdc', 'ruas_deeplab_acdc_dark-zurich', 'ruas_deeplab_camvid', 'deeplab_demo']
SHAPE = (40, 56)


def shrink(config):
    """Keep data sets and pipelines of a config, and give it the demo's model with fewer channels."""
    task = 'detection' if 'bbox_head' in config.model else 'segmentation'
    small = Config.fromfile(ROOT / task / f'ruas_{"ssd" if task == "detection" else "deeplab"}_demo.py').model
    small.backbone.update(base_channels=8, stem_channels=8)
    small.data_preprocessor.scene_module.stages = 1
    levels = (8, 16, 32, 64)
    if task == 'detection':
        small.neck.update(in_channels=levels, out_channels=(*levels, 8, 8))
        small.bbox_head.update(in_channels=(*levels, 8, 8), num_classes=config.model.bbox_head.num_classes)
        small.test_cfg.update(score_thr=0.0, max_per_img=5)
    else:
        small.decode_head.update(in_channels=64, channels=8, reduced_channels=8, c1_in_channels=8, c1_channels=8)
        small.decode_head.num_classes = config.model.decode_head.num_classes
    config.model = small
    for pipeline in (config.test_pipeline, config.test_dataloader.dataset.pipeline):
        next(step for step in pipeline if step.type.endswith('Resize')).scale = SHAPE[::-1]
    return config


@pytest.fixture(params=['own', 'inherited', 'file'])
def get_config(request, tmp_path):
    """Return a config as an object, inherited from this package (mmengine then scopes its dicts), or as a file."""

    def get_config(task, name):
        path = ROOT / task / f'{name}.py'
        if request.param == 'inherited':
            path = tmp_path / 'inherited.py'
            path.write_text(f"_base_ = 'ruas_mm::{task}/{name}.py'\n")
        config = shrink(Config.fromfile(path))
        if request.param != 'file':
            return config
        config.dump(tmp_path / 'config.py')
        return str(tmp_path / 'config.py')

    return get_config


@pytest.fixture
def images(tmp_path):
    """Two images, as arrays (BGR) and as files."""
    arrays = list(np.random.default_rng(0).integers(0, 60, (2, *SHAPE, 3), dtype=np.uint8))
    paths = [str(tmp_path / f'{index}.png') for index in range(2)]
    for array, path in zip(arrays, paths, strict=True):
        Image.fromarray(array[..., ::-1]).save(path)
    return arrays, paths


def consistent(results):
    """Whether the results of (first, [first, second]), in several forms, agree for each image."""
    first, second = [r for i, r in enumerate(results) if i % 3 < 2], results[2::3]
    return all(torch.equal(group[0], other) for group in (first, second) for other in group[1:])


# --- segmentation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', SEGMENTATION)
def test_inference_model(name, get_config, images):
    arrays, paths = images
    model = init_model(get_config('segmentation', name), device='cpu')
    found = [inference_model(model, paths[0]), *inference_model(model, paths)]
    found += [inference_model(model, arrays[0]), *inference_model(model, arrays)]
    labels = [result.pred_sem_seg.data for result in found]
    assert all(label.shape == (1, *SHAPE) for label in labels)
    assert not any('gt_sem_seg' in result for result in found)
    assert consistent(labels)


@pytest.mark.parametrize('name', SEGMENTATION)
def test_segmentation_inferencer(name, get_config, images, tmp_path):
    arrays, paths = images
    inferencer = MMSegInferencer(get_config('segmentation', name), device='cpu')
    labels = [inferencer(one)['predictions'] for one in (paths[0], arrays[0])]
    assert all(label.shape == SHAPE for label in labels) and np.array_equal(*labels)
    assert len(inferencer(paths, batch_size=2, out_dir=str(tmp_path / 'out'))['predictions']) == 2
    assert len(list((tmp_path / 'out' / 'vis').iterdir())) == 2


# --- detection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', DETECTION)
def test_inference_detector(name, get_config, images):
    arrays, paths = images
    model = init_detector(get_config('detection', name), device='cpu')
    pipeline = Compose(get_test_pipeline_cfg(model.cfg.copy()))
    found = [inference_detector(model, paths[0]), *inference_detector(model, paths)]
    found += [inference_detector(model, arrays[0]), *inference_detector(model, arrays)]
    found += [inference_detector(model, paths[0], pipeline), *inference_detector(model, paths, pipeline)]
    boxes = [result.pred_instances.bboxes for result in found]
    assert all(box.shape == (5, 4) and box.isfinite().all() for box in boxes)
    assert consistent(boxes)


@pytest.mark.parametrize('name', DETECTION)
def test_detection_inferencer(name, get_config, images, tmp_path):
    arrays, paths = images
    inferencer = DetInferencer(get_config('detection', name), device='cpu', show_progress=False)
    found = [inferencer(one)['predictions'][0] for one in (paths[0], arrays[0])]
    assert found[0] == found[1] and len(found[0]['bboxes']) == 5
    results = inferencer(paths, batch_size=2, out_dir=str(tmp_path / 'out'))['predictions']
    assert len(results) == 2
    assert len(list((tmp_path / 'out' / 'vis').iterdir())) == 2


# --- names of the host in inherited dicts --------------------------------------------------------------------------


def test_inherited_dict_takes_a_type_of_the_host(tmp_path):
    """Another type in an inherited dict is one of the host's, and an unknown one is still an error."""
    (tmp_path / 'inherited.py').write_text("_base_ = 'ruas_mm::detection/ruas_ssd_demo.py'\n")
    flip = Config.fromfile(tmp_path / 'inherited.py').train_pipeline[4]
    assert flip['_scope_'] == 'ruas_mm'
    init_default_scope('mmdet')
    assert type(TRANSFORMS.build({**flip, 'type': 'RandomShift'})) is RandomShift
    with pytest.raises(KeyError, match='NoSuchTransform is not in the ruas_mm::transform registry'):
        TRANSFORMS.build({**flip, 'type': 'NoSuchTransform'})
