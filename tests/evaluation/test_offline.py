"""Metrics computed from a file of predictions, as the hosts' tools/analysis_tools/eval_metric.py does."""

import numpy as np
import pytest
import torch
from mmengine import load
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from PIL import Image

pytest.importorskip('mmdet.models', reason='mmdet or mmcv is missing', exc_type=ImportError)
pytest.importorskip('mmseg.models', reason='mmseg or mmcv is missing', exc_type=ImportError)

from pathlib import Path

from mmdet.evaluation import DumpDetResults
from mmdet.registry import DATASETS
from mmseg.structures import SegDataSample

from ruas_mm.evaluation.dump import DumpPredictions

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def dataset(tmp_path):
    """Two images of DARK FACE behind the test pipeline of its config, the second without a face."""
    for name, label in (('1', '1\n10 8 30 28\n'), ('2', '0\n')):
        for folder in ('image', 'label'):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(tmp_path / 'image' / f'{name}.png')
        (tmp_path / 'label' / f'{name}.txt').write_text(label)
    init_default_scope('mmdet')
    config = Config.fromfile(CONFIGS / 'detection' / 'ruas_ssd_darkface.py').test_dataloader.dataset
    return DATASETS.build({**config, 'data_root': str(tmp_path), 'ann_file': ''})


@pytest.mark.parametrize('metric', ['ruas_mm.DarkFaceMetric', 'mmdet.VOCMetric', 'mmdet.CocoMetric'])
@pytest.mark.parametrize('dump', [DumpPredictions, DumpDetResults])
def test_detections(dataset, tmp_path, dump, metric):
    if (dump, metric) == (DumpDetResults, 'mmdet.VOCMetric'):
        pytest.skip("mmdet's own dump has no gt_instances, which its own VOCMetric asks for")
    samples = [data['data_samples'] for data in dataset]
    for sample in samples:
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 8.0, 30.0, 28.0]])[: len(sample.instances)],
            scores=torch.ones(len(sample.instances)),
            labels=torch.zeros(len(sample.instances), dtype=torch.long),
        )
    writer = dump(out_file_path=str(tmp_path / 'out.pkl'))
    writer.process({}, [sample.to_dict() for sample in samples])
    writer.evaluate(len(samples))
    evaluator = Evaluator(dict(type=metric))
    evaluator.dataset_meta = dataset.metainfo
    figures = evaluator.offline_evaluate(load(tmp_path / 'out.pkl'))
    key = {'ruas_mm.DarkFaceMetric': 'darkface/voc_area_ap50', 'mmdet.VOCMetric': 'pascal_voc/AP50'}
    assert figures[key.get(metric, 'coco/bbox_mAP_50')] == pytest.approx(1, abs=1e-3)


def test_label_maps(tmp_path):
    init_default_scope('mmseg')
    truth = torch.tensor([[[0, 1, 255], [1, 1, 0]]])
    sample = SegDataSample(gt_sem_seg=PixelData(data=truth), pred_sem_seg=PixelData(data=truth.clip(max=1)))
    sample.set_metainfo(dict(img_path='a.png'))
    writer = DumpPredictions(out_file_path=str(tmp_path / 'out.pkl'))
    writer.process({}, [sample.to_dict()])
    writer.evaluate(1)
    evaluator = Evaluator(dict(type='mmseg.IoUMetric'))
    evaluator.dataset_meta = dict(classes=('road', 'car'))
    kept = load(tmp_path / 'out.pkl')
    assert kept[0]['gt_sem_seg']['data'].dtype == torch.uint8
    assert evaluator.offline_evaluate(kept)['mIoU'] == 100
