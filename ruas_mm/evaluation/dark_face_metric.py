"""Average precision on DARK FACE, under each of the protocols used in publications.

All protocols use the same matching: detections are processed in order of decreasing score, and each is assigned to the
ground truth it overlaps most. It is a hit if the overlap reaches the threshold, and a true positive if it is the first
hit of that ground truth. Boxes include their last pixel (width ``x2 - x1 + 1``), as in the PASCAL VOC and WIDER FACE
tools. The protocols differ in how they compute AP from the matches:

* VOC: precision and recall after every detection; AP is the area under the precision envelope (2010 and later), or the
  mean of the envelope at recall 0, 0.1, …, 1 (2007).
* The official DARK FACE tool, derived from that of WIDER FACE: scores are rescaled to [0, 1] over the whole set,
  precision and recall are evaluated at the thresholds 0.999, 0.998, …, 0, and images without ground truth are excluded,
  so false positives in them do not count. AP is the area under the envelope of these 1000 points.

Sources: Everingham et al., IJCV 2010 and 2015; Yang et al., CVPR 2016 (WIDER FACE); the evaluation tool of the UG2+
challenge in its final version of May 2019 (boxes as xyxy; if all scores are equal, they become 1).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from ruas_mm.utils.fileio import atomic_write

_SIZES = ('small', 'medium', 'large')
_WIDER_THRESHOLDS = 1 - np.arange(1, 1001) / 1000


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes that include their last pixel.

    Args:
        boxes (np.ndarray): Shape (D, 4), xyxy in pixels.
        others (np.ndarray): Shape (G, 4), xyxy in pixels.

    Returns:
        np.ndarray: Shape (D, G), in [0, 1].
    """
    a, b = boxes[:, None], others[None]
    both = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1).clip(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2] + 1).clip(min=0).prod(-1) for box in (a, b)]
    return both / np.maximum(sum(areas) - both, np.finfo(float).tiny)


def average_precision(recall: np.ndarray, precision: np.ndarray, points: int | None = None) -> float:
    """Summarise a precision-recall curve.

    Args:
        recall (np.ndarray): Shape (N,), not decreasing, in [0, 1].
        precision (np.ndarray): Shape (N,), in [0, 1].
        points (int, optional): Number of equidistant recall values over which the precision envelope is averaged, or
            None for the area under the envelope.

    Returns:
        float: In [0, 1].
    """
    # The envelope is the maximum precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if points is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    # The tolerance makes a recall of exactly 3/10 reach 0.3 in spite of rounding.
    reached = np.searchsorted(recall, np.linspace(0, 1, points) - 1e-9)
    return float(np.append(envelope, 0.0)[reached].mean())


def _labels_of(instances: Sequence[dict]) -> tuple[dict, dict]:
    """Split the labels of a data set, in pixels of the original image, into ground truth and ignored instances."""
    parts = ([one for one in instances if bool(one.get('ignore_flag')) is ignored] for ignored in (False, True))
    return tuple(
        {
            'bboxes': np.array([one['bbox'] for one in part], dtype=float).reshape(-1, 4),
            'labels': np.array([one['bbox_label'] for one in part], dtype=int),
        }
        for part in parts
    )


_DETECTION = np.dtype(
    [
        ('score', float),
        ('size', float),  # square root of the area
        ('hit', bool),  # whether it overlaps a ground truth sufficiently
        ('first', bool),  # whether it is the first hit of that ground truth
        ('hit_size', float),  # size of that ground truth
        ('hit_ignored', bool),  # whether that ground truth is ignored
        ('judged', bool),  # whether the image has any ground truth
    ]
)


@dataclass
class _Matches:
    """The detections of one class in all images, by decreasing score, and the sizes of the faces not ignored."""

    detections: np.ndarray  # (D,) of _DETECTION
    face_sizes: np.ndarray  # (G,)

    def faces(self, low: float = 0.0, high: float = np.inf) -> int:
        """Return the number of faces with a size in [low, high)."""
        return int(_within(self.face_sizes, low, high).sum())

    def curve(self, low: float = 0.0, high: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
        """Return recall and precision after every detection, for faces with a size in [low, high)."""
        found = self.detections
        counts = _within(found['hit_size'], low, high) & ~found['hit_ignored']
        valid = np.where(found['hit'], counts, _within(found['size'], low, high))
        return self._curve(valid, self.faces(low, high))

    def wider_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return recall and precision at the thresholds of the official tool."""
        scores = self.detections['score']
        low, high = (scores[-1], scores[0]) if len(scores) else (0.0, 0.0)
        scores = (scores - low) / (high - low) if high > low else np.ones_like(scores)
        recall, precision = self._curve(self.detections['judged'] & ~self.detections['hit_ignored'], self.faces())
        above = np.searchsorted(-scores, -_WIDER_THRESHOLDS, side='right')  # detections at or above each threshold
        return np.append(0.0, recall)[above], np.append(0.0, precision)[above]

    def _curve(self, valid: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
        true = np.cumsum(self.detections['first'] & valid)
        return true / max(faces, 1), true / np.maximum(np.cumsum(valid), 1)


def _within(sizes: np.ndarray, low: float, high: float) -> np.ndarray:
    return (sizes >= low) & (sizes < high)


def _size(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(-1))


def _match(results: list[dict], label: int, iou_thr: float) -> _Matches:
    detections, face_sizes = [np.zeros(0, _DETECTION)], [np.zeros(0)]
    for result in results:
        chosen = np.flatnonzero(result['labels'] == label)
        chosen = chosen[np.argsort(-result['scores'][chosen], kind='stable')]
        boxes = result['boxes'][chosen]
        faces = result['gt_boxes'][result['gt_labels'] == label]
        ignored = result['gt_ignored'][result['gt_labels'] == label]

        found = np.zeros(len(boxes), _DETECTION)
        found['score'] = result['scores'][chosen]
        found['size'] = _size(boxes)
        found['judged'] = len(faces) > 0
        if len(boxes) and len(faces):
            iou = overlaps(boxes, faces)
            best = iou.argmax(1)
            found['hit'] = iou.max(1) >= iou_thr
            found['hit_size'] = _size(faces)[best]
            found['hit_ignored'] = found['hit'] & ignored[best]
            hits = np.flatnonzero(found['hit'])
            found['first'][hits[np.unique(best[hits], return_index=True)[1]]] = True
        detections.append(found)
        face_sizes.append(_size(faces)[~ignored])
    merged = np.concatenate(detections)
    order = np.argsort(-merged['score'], kind='stable')
    return _Matches(merged[order], np.concatenate(face_sizes))


class DarkFaceMetric(BaseMetric):
    """Average precision under three protocols, recall, and average precision by face size.

    * ``voc_area_ap50``: VOC, area under the precision envelope
    * ``voc_11point_ap50``: VOC 2007, mean over 11 recalls
    * ``wider_ap50``: the official DARK FACE tool
    * ``recall``: fraction of the faces that are hit by any detection
    * ``voc_area_ap50_small``, ``…_medium``, ``…_large``: ``voc_area_ap50`` of the faces of one size. Faces of other
      sizes and the detections that hit them are ignored, as are detections of another size that hit nothing.

    With several classes, each metric is the mean over the classes that have ground truth. A metric is NaN if it has no
    ground truth. Without detections, all other metrics are 0. ``50`` stands for ``iou_thr``.

    Ground truth must be in the coordinates of the original image, like the predictions: in the test pipeline, place
    ``LoadAnnotations`` after ``Resize``. Ground truth in ``ignored_instances`` counts neither as a positive nor, if it
    is hit, as a false positive.

    Args:
        iou_thr (float): Minimum overlap for a hit, in (0, 1]. Defaults to 0.5.
        size_bounds (Sequence[float]): Minimum sizes of medium and of large faces, as the square root of the area in
            pixels of the original image. Defaults to (8, 16), which divides DARK FACE's 43 849 faces into 32, 35 and
            33 %.
        pr_curve (str, optional): Image file for the precision-recall curves, or a folder in which ``pr_curve.png`` is
            written. Defaults to None, which draws no curves.
        collect_device (str): 'cpu' or 'gpu', see ``mmengine.evaluator.BaseMetric``.
        prefix (str, optional): Prefix of the metric names, which replaces 'darkface'.
    """

    default_prefix = 'darkface'

    def __init__(
        self,
        iou_thr: float = 0.5,
        size_bounds: Sequence[float] = (8, 16),
        pr_curve: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 < iou_thr <= 1:
            raise ValueError(f'iou_thr of DarkFaceMetric must be in (0, 1], got {iou_thr}.')
        if len(size_bounds) != 2 or not 0 < size_bounds[0] < size_bounds[1]:
            raise ValueError(f'size_bounds of DarkFaceMetric must be two ascending positive sizes, got {size_bounds}.')
        self.iou_thr = iou_thr
        self.size_bounds = tuple(size_bounds)
        self.pr_curve = pr_curve

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the boxes, scores and labels of each image.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): ``DetDataSample.to_dict()`` of each image, with ``pred_instances`` (boxes
                xyxy, scores, labels), ``gt_instances`` (boxes, labels) and optionally ``ignored_instances``. Without
                ``gt_instances``, as in mmdet's dumps, the ``instances`` of the data set are used.

        Raises:
            ValueError: If the ground truth of an image is not loaded, or a score, box or label is invalid.
        """
        for sample in data_samples:
            image = sample.get('img_path', f'image {sample.get("img_id", len(self.results))}')
            predicted, truth = sample['pred_instances'], sample.get('gt_instances', {})
            ignored = sample.get('ignored_instances', {})
            if 'bboxes' not in truth and 'instances' in sample:
                truth, ignored = _labels_of(sample['instances'])
            if 'bboxes' not in truth:
                raise ValueError(
                    f'{image}: a sample must have gt_instances or instances, got neither; use LoadAnnotations '
                    "in the test pipeline, or 'instances' in the meta_keys of PackDetInputs."
                )
            ignored = ignored if 'bboxes' in ignored else {'bboxes': np.zeros((0, 4)), 'labels': np.zeros(0, dtype=int)}
            gt_ignored = np.repeat([False, True], [len(truth['labels']), len(ignored['labels'])])
            result = dict(
                boxes=_array(predicted['bboxes']).reshape(-1, 4),
                scores=_array(predicted['scores']),
                labels=_array(predicted['labels']),
                gt_boxes=np.concatenate([_array(part['bboxes']).reshape(-1, 4) for part in (truth, ignored)]),
                gt_labels=np.concatenate([_array(part['labels']) for part in (truth, ignored)]),
                gt_ignored=gt_ignored,
            )
            for name, values in result.items():
                if not np.isfinite(values).all():
                    raise ValueError(f'{image}: {name} must be finite, got NaN or infinity.')
            classes = len(self._classes())
            for name in ('labels', 'gt_labels'):
                invalid = result[name][(result[name] < 0) | (result[name] >= classes)]
                if len(invalid):
                    raise ValueError(f'{image}: {name} must be from 0 to {classes - 1}, got {invalid[0]}.')
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics, log them as a table, and draw the curves if ``pr_curve`` is set.

        Args:
            results (list[dict]): The stored results of all images.

        Returns:
            dict[str, float]: The metrics listed in the docstring of the class, in [0, 1], or NaN if undefined.
        """
        percent = f'{round(100 * self.iou_thr):02d}'
        ranges = list(zip((0, *self.size_bounds), (*self.size_bounds, np.inf), strict=True))
        names = [f'voc_area_ap{percent}', f'voc_11point_ap{percent}', f'wider_ap{percent}', 'recall']
        names += [f'voc_area_ap{percent}_{size}' for size in _SIZES]
        rows, curves = [], {}
        for label, class_name in enumerate(self._classes()):
            matches = _match(results, label, self.iou_thr)
            if not len(matches.face_sizes):
                continue
            voc, wider = matches.curve(), matches.wider_curve()
            areas = average_precision(*voc), average_precision(*wider)
            curves[f'{class_name}, VOC area {areas[0]:.3f}'] = voc
            curves[f'{class_name}, WIDER {areas[1]:.3f}'] = wider
            by_size = [
                average_precision(*matches.curve(low, high)) if matches.faces(low, high) else np.nan
                for low, high in ranges
            ]
            recall = voc[0][-1] if len(voc[0]) else 0.0
            rows.append([areas[0], average_precision(*voc, points=11), areas[1], recall, *by_size])

        columns = np.array(rows).reshape(-1, len(names)).T
        metrics = {name: _mean(column) for name, column in zip(names, columns, strict=True)}
        faces = sum(int((~result['gt_ignored']).sum()) for result in results)
        detections = sum(len(result['labels']) for result in results)
        lines = [f'{len(results)} images, {faces} ground truths, {detections} detections']
        lines += [f'{name:<22}{"–" if np.isnan(value) else f"{value:.4f}":>8}' for name, value in metrics.items()]
        print_log('\n'.join(lines), 'current')
        if not rows:
            print_log(
                'DarkFaceMetric: there is no ground truth, so all metrics are undefined.', 'current', logging.WARNING
            )
        if self.pr_curve is not None:
            self._draw(curves)
        return metrics

    def _classes(self) -> Sequence[str]:
        return (self.dataset_meta or {}).get('classes', ('face',))

    def _draw(self, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        # pyplot is avoided because it has global state and may require a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 5), layout='constrained')
        axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', ylabel='precision')
        axes.set_title(f'precision and recall at IoU {self.iou_thr:g}')
        axes.grid(alpha=0.3)
        for i, (name, (recall, precision)) in enumerate(curves.items()):
            reached = (recall > 0) | (precision > 0)  # above the highest score, the official curve is 0/0
            axes.plot(
                recall[reached], precision[reached], color=f'C{i // 2}', linestyle='--' if i % 2 else '-', label=name
            )
        if curves:
            axes.legend(title='AP')

        path = Path(self.pr_curve)
        if not path.suffix:
            path /= 'pr_curve.png'
        picture = io.BytesIO()
        FigureCanvasAgg(figure).print_figure(picture, dpi=120, format=path.suffix[1:])
        atomic_write(path, picture.getvalue())


def _array(values: Any) -> np.ndarray:
    values = torch.as_tensor(getattr(values, 'tensor', values)).detach().cpu()  # mmdet's box types wrap a tensor
    return (values.double() if values.is_floating_point() else values).numpy()


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float('nan')
