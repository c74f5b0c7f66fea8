import logging
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from ruas_mm.evaluation import DarkFaceMetric
from ruas_mm.evaluation.dark_face_metric import average_precision, overlaps
from ruas_mm.registry import METRICS


def sample(detections, faces, ignored=(), labels=None, gt_labels=None, **meta):
    """One image: detections as (x1, y1, x2, y2, score), faces and ignored faces as (x1, y1, x2, y2)."""
    detections = torch.tensor(detections, dtype=torch.float64).reshape(-1, 5)
    faces = torch.tensor(faces, dtype=torch.float64).reshape(-1, 4)
    ignored = torch.tensor(ignored, dtype=torch.float64).reshape(-1, 4)
    labels = torch.zeros(len(detections), dtype=torch.long) if labels is None else torch.as_tensor(labels)
    gt_labels = torch.zeros(len(faces), dtype=torch.long) if gt_labels is None else torch.as_tensor(gt_labels)
    return dict(
        pred_instances=dict(bboxes=detections[:, :4], scores=detections[:, 4], labels=labels),
        gt_instances=dict(bboxes=faces, labels=gt_labels),
        ignored_instances=dict(bboxes=ignored, labels=torch.zeros(len(ignored), dtype=torch.long)),
        **meta,
    )


def evaluate(samples, classes=('face',), **kwargs):
    metric = DarkFaceMetric(**kwargs)
    metric.dataset_meta = dict(classes=classes)
    for one in samples:
        metric.process({}, [one])
    return {name.removeprefix('darkface/'): value for name, value in metric.evaluate(len(samples)).items()}


def random_samples(seed, images=30, classes=1, decimals=None):
    """Jittered, doubled and invented detections; some images without faces, some without detections."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(images):
        corner = rng.integers(0, 900, (rng.integers(0, 8), 2))
        faces = np.hstack([corner, corner + rng.integers(3, 50, corner.shape)])
        gt_labels = rng.integers(0, classes, len(faces))
        near = np.repeat(faces, 2, axis=0) + rng.normal(0, 2, (2 * len(faces), 4))
        corner = rng.uniform(0, 900, (rng.integers(0, 6), 2))
        boxes = np.vstack([near, np.hstack([corner, corner + rng.uniform(3, 50, corner.shape)])])
        labels = np.concatenate([np.repeat(gt_labels, 2), rng.integers(0, classes, len(corner))])
        kept = rng.random(len(boxes)) < 0.7 * (rng.random() < 0.9)
        scores = rng.random((len(boxes), 1)).astype(np.float32)
        scores = scores if decimals is None else scores.round(decimals)
        ignored = faces[:0]
        if len(faces) > 4:
            faces, ignored, gt_labels = faces[:-1], faces[-1:], gt_labels[:-1]
        samples.append(sample(np.hstack([boxes, scores])[kept], faces, ignored, labels[kept], gt_labels))
    return samples


FACE, FAR = (10, 10, 19, 19), (50, 50, 59, 59)  # of 10×10 pixels, both ends included; size 9


def test_overlap_includes_the_last_pixel():
    iou = overlaps(
        np.array([[0.0, 0, 9, 9], [5, 0, 14, 9]]), np.array([[0.0, 0, 9, 9], [20, 20, 29, 29], [0, 0, 9, 4]])
    )
    np.testing.assert_allclose(iou, [[1, 0, 0.5], [1 / 3, 0, 25 / 125]])


def test_average_precision_by_hand():
    recall, precision = np.array([0.25, 0.25, 0.5, 0.5]), np.array([1, 0.5, 2 / 3, 0.5])
    assert average_precision(recall, precision) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    # recalls 0, 0.1, 0.2 see 1; 0.3, 0.4, 0.5 see 2/3; the other five nothing
    assert average_precision(recall, precision, points=11) == pytest.approx((3 + 3 * 2 / 3) / 11)


def test_a_recall_of_exactly_three_tenths_counts():
    recall = np.arange(1, 4) / 10
    assert average_precision(recall, np.ones(3), points=11) == pytest.approx(4 / 11)


def test_one_image_by_hand():
    # true, double, false alarm, true
    found = [(*FACE, 0.9), (*FACE, 0.8), (200, 200, 209, 209, 0.7), (*FAR, 0.6)]
    figures = evaluate([sample(found, [FACE, FAR])])
    assert figures['voc_area_ap50'] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert figures['voc_11point_ap50'] == pytest.approx((6 + 5 * 0.5) / 11)
    assert figures['wider_ap50'] == pytest.approx(0.75)
    assert figures['recall'] == 1
    assert figures['voc_area_ap50_medium'] == pytest.approx(0.75)  # all boxes here are 9 wide: medium
    assert math.isnan(figures['voc_area_ap50_small']) and math.isnan(figures['voc_area_ap50_large'])
    assert all(type(value) is float for value in figures.values())


def test_the_threshold_itself_is_a_hit():
    half = (10, 10, 19, 14, 0.9)
    assert evaluate([sample([half], [FACE])])['voc_area_ap50'] == 1
    figures = evaluate([sample([half], [FACE])], iou_thr=0.51)
    assert figures['voc_area_ap51'] == 0


def test_official_tool_forgives_false_alarms_in_empty_images():
    empty = sample([(*FAR, 0.95)], [])
    figures = evaluate([sample([(*FACE, 0.9)], [FACE]), empty])
    assert figures['voc_area_ap50'] == pytest.approx(0.5)
    assert figures['wider_ap50'] == 1


def test_official_tool_sees_a_thousand_thresholds():
    # Once stretched, 0.5 and 0.5 + 1e-5 fall into the same step, so that the true one cannot come first.
    found = [(0, 0, 5, 5, 1.0), (*FACE, 0.50001), (90, 90, 99, 99, 0.5), (0, 90, 5, 99, 0.0)]
    figures = evaluate([sample(found, [FACE])])
    assert figures['voc_area_ap50'] == pytest.approx(1 / 2)
    assert figures['wider_ap50'] == pytest.approx(1 / 3)


def test_equal_scores_all_become_one():
    found = [(*FACE, 0.5), (*FAR, 0.5)]
    assert evaluate([sample(found, [FACE])])['wider_ap50'] == pytest.approx(0.5)


def test_ignored_faces_neither_count_nor_harm():
    found = [(*FAR, 0.9), (*FAR, 0.8), (*FACE, 0.7)]
    figures = evaluate([sample(found, [FACE], ignored=[FAR])])
    assert figures['voc_area_ap50'] == figures['wider_ap50'] == figures['recall'] == 1


def test_sizes_by_hand():
    faces = [(0, 0, 4, 4), (100, 100, 110, 110), (200, 200, 240, 240)]  # 4, 10 and 40: one of each size
    found = [(*faces[2], 0.9), (300, 300, 304, 304, 0.8), (*faces[0], 0.7), (300, 300, 340, 340, 0.6)]
    figures = evaluate([sample(found, faces)])
    assert figures['voc_area_ap50_small'] == pytest.approx(1 / 2)  # behind a small false alarm, the large one ignored
    assert figures['voc_area_ap50_medium'] == 0
    assert figures['voc_area_ap50_large'] == 1
    figures = evaluate([sample(found, faces)], size_bounds=(16, 32))
    assert figures['voc_area_ap50_small'] == pytest.approx(0.5 * 0.5)  # two of three are small now
    assert math.isnan(figures['voc_area_ap50_medium'])


def test_without_detections_and_without_faces(caplog):
    nothing = evaluate([sample([], [FACE]), sample([], [])])
    assert nothing['voc_area_ap50'] == nothing['voc_11point_ap50'] == nothing['wider_ap50'] == nothing['recall'] == 0
    with caplog.at_level(logging.WARNING):
        MMLogger.get_instance('dark_face_metric').addHandler(caplog.handler)
        undefined = evaluate([sample([(*FACE, 0.9)], []), sample([], [])])
    assert all(math.isnan(value) for value in undefined.values())
    assert 'there is no ground truth' in caplog.text


def test_mean_over_the_classes_with_ground_truth():
    one = sample([(*FACE, 0.9), (*FAR, 0.8)], [FACE, FAR], labels=[0, 2], gt_labels=[0, 1])
    figures = evaluate([one], classes=('a', 'b', 'c'))
    assert figures['voc_area_ap50'] == figures['wider_ap50'] == figures['recall'] == 0.5


def wider_reference(samples, iou_thr=0.5, steps=1000):
    """The official protocol as plain loops, image by image and threshold by threshold."""
    images = []
    for one in samples:
        found = np.hstack([one['pred_instances']['bboxes'], one['pred_instances']['scores'][:, None]]).astype(float)
        faces = np.vstack([one['gt_instances']['bboxes'], one['ignored_instances']['bboxes']]).astype(float)
        images.append((found[np.argsort(-found[:, 4], kind='stable')], faces, len(one['gt_instances']['bboxes'])))
    scores = np.concatenate([found[:, 4] for found, _, _ in images])
    counts = np.zeros((steps, 2))
    for found, faces, counting in images:
        if not len(found) or not len(faces):
            continue
        stretched = (found[:, 4] - scores.min()) / (scores.max() - scores.min())
        state, valid, recalled = [0] * len(faces), [], []
        for x1, y1, x2, y2, _ in found:
            best, best_iou = 0, -1.0
            for j, (a1, b1, a2, b2) in enumerate(faces):
                w, h = min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1
                both = w * h if w > 0 and h > 0 else 0.0
                iou = both / ((x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - both)
                if iou > best_iou:
                    best, best_iou = j, iou
            hit = best_iou >= iou_thr
            valid.append(not (hit and best >= counting))
            if hit and best < counting:
                state[best] = 1
            recalled.append(sum(state))
        for t in range(steps):
            above = int((stretched >= 1 - (t + 1) / steps).sum())
            if above:
                counts[t] += sum(valid[:above]), recalled[above - 1]
    faces = sum(counting for _, _, counting in images)
    area, last = 0.0, 0.0
    for t in range(steps):
        recall = counts[t, 1] / faces
        envelope = max((c / n for n, c in counts[t:] if n), default=0.0)
        area, last = area + (recall - last) * envelope, recall
    return area


@pytest.mark.parametrize('seed', range(3))
def test_wider_agrees_with_plain_loops(seed):
    samples = random_samples(seed)
    assert evaluate(samples)['wider_ap50'] == pytest.approx(wider_reference(samples), abs=1e-12)


def test_wider_agrees_with_plain_loops_on_tied_scores():
    samples = random_samples(7, decimals=2)
    assert evaluate(samples)['wider_ap50'] == pytest.approx(wider_reference(samples), abs=1e-12)


@pytest.mark.parametrize('classes', [1, 3])
def test_voc_agrees_with_mmdet(classes):
    pytest.importorskip('mmdet.evaluation', reason='mmdet or mmcv is missing', exc_type=ImportError)
    from mmdet.evaluation import VOCMetric

    samples = random_samples(0, images=40, classes=classes)
    names = tuple('abc'[:classes])
    figures = evaluate(samples, names)
    for mode, name in (('area', 'voc_area_ap50'), ('11points', 'voc_11point_ap50')):
        reference = VOCMetric(eval_mode=mode)
        reference.dataset_meta = dict(classes=names)
        reference.process({}, samples)
        assert 0.2 < figures[name] < 0.95
        # mmdet rounds AP50 to three digits, not mAP; it computes in float32
        assert figures[name] == pytest.approx(reference.evaluate(len(samples))['pascal_voc/mAP'], abs=1e-5)


def test_sizes_agree_with_mmdet():
    evaluation = pytest.importorskip('mmdet.evaluation', reason='mmdet or mmcv is missing', exc_type=ImportError)
    # Squares far from the bounds: mmdet measures areas with the last pixel included, too.
    rng = np.random.default_rng(0)
    samples, truths, found = [], [], []
    for _ in range(40):
        corner, side = rng.integers(0, 900, (8, 2)), rng.choice([5, 11, 30], (8, 1))
        squares = np.hstack([corner, corner + side]).astype(float)
        boxes = np.repeat(squares, 2, axis=0) + rng.normal(0, 0.6, (16, 4))
        boxes = np.hstack([boxes, rng.random((16, 1))])[rng.random(16) < 0.7].astype(np.float32)
        samples.append(sample(boxes, squares[:5], ignored=squares[5:6]))  # what hits the last two is a false alarm
        truths.append(
            dict(bboxes=squares[:5], labels=np.zeros(5), bboxes_ignore=squares[5:6], labels_ignore=np.zeros(1))
        )
        found.append([boxes])
    figures = evaluate(samples)
    ranges = [(0, 8), (8, 16), (16, 1e4)]
    expected, _ = evaluation.eval_map(
        found, truths, scale_ranges=ranges, logger='silent', eval_mode='area', use_legacy_coordinate=True
    )
    assert min(expected) > 0.2 and max(expected) < 0.95
    assert [figures[f'voc_area_ap50_{size}'] for size in ('small', 'medium', 'large')] == pytest.approx(
        expected, abs=1e-5
    )


def test_sizes_agree_with_the_whole_when_there_is_one_size():
    samples = random_samples(1)
    figures = evaluate(samples, size_bounds=(1e6, 2e6))
    assert figures['voc_area_ap50_small'] == figures['voc_area_ap50']


def test_takes_what_the_model_returns():
    structures = pytest.importorskip('mmdet.structures', reason='mmdet or mmcv is missing', exc_type=ImportError)
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData

    one = structures.DetDataSample(metainfo=dict(img_path='1.png'))
    face = torch.tensor([FACE], dtype=torch.float32)
    label = torch.zeros(1, dtype=torch.long)
    one.pred_instances = InstanceData(bboxes=face, scores=torch.ones(1), labels=label)
    one.gt_instances = InstanceData(bboxes=HorizontalBoxes(face), labels=label)
    one.ignored_instances = InstanceData(bboxes=HorizontalBoxes(face[:0]), labels=label[:0])
    assert evaluate([one.to_dict()])['voc_area_ap50'] == 1


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (sample([(*FACE, math.nan)], [FACE], img_path='7.png'), '7.png: scores must be finite'),
        (sample([(0, 0, math.inf, 9, 0.5)], [FACE], img_path='7.png'), '7.png: boxes must be finite'),
        (sample([(*FACE, 0.5)], [FACE], labels=[1], img_path='7.png'), '7.png: labels must be from 0 to 0, got 1'),
        (sample([], [FACE], gt_labels=[-1], img_id=7), 'image 7: gt_labels must be from 0 to 0, got -1'),
        (
            sample([], []) | dict(gt_instances={}, img_path='7.png'),
            '7.png: a sample must have gt_instances or instances, got neither; use LoadAnnotations',
        ),
    ],
)
def test_one_clear_error(broken, message):
    with pytest.raises(ValueError, match=message) as error:
        evaluate([broken])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'wrong', [dict(iou_thr=0), dict(iou_thr=50), dict(size_bounds=(16, 8)), dict(size_bounds=(8,))]
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match='of DarkFaceMetric must be'):
        DarkFaceMetric(**wrong)


@pytest.mark.parametrize('target', ['curves', 'curves/face.png'])
def test_picture(tmp_path, target):
    evaluate(random_samples(0), pr_curve=str(tmp_path / target))
    (picture,) = (tmp_path / 'curves').iterdir()  # and no temporary file
    assert picture.name == ('pr_curve.png' if target == 'curves' else 'face.png')
    pixels = np.asarray(Image.open(picture).convert('RGB'))
    assert pixels.shape == (600, 720, 3)
    assert (pixels == (31, 119, 180)).all(-1).sum() > 200  # the curves, in matplotlib's first colour


def test_picture_of_nothing(tmp_path):
    evaluate([sample([], [])], pr_curve=str(tmp_path))
    assert Image.open(tmp_path / 'pr_curve.png').size == (720, 600)


def test_built_by_name_and_logged(caplog):
    metric = METRICS.build(dict(type='ruas_mm.DarkFaceMetric'))
    metric.dataset_meta = dict(classes=('face',))
    metric.process({}, [sample([(*FACE, 0.9)], [FACE])])
    MMLogger.get_instance('dark_face_metric').addHandler(caplog.handler)
    figures = metric.evaluate(1)
    assert figures['darkface/wider_ap50'] == 1
    assert '1 images, 1 ground truths, 1 detections' in caplog.text
    assert 'voc_11point_ap50' in caplog.text
    assert metric.results == []
