"""mmdet's single-stage detector with the scene loss."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from mmdet.models import SingleStageDetector
from mmdet.structures import SampleList
from torch import Tensor

from ruas_mm.models.scene_model import SceneModelMixin


class RUASSingleStageDetector(SceneModelMixin, SingleStageDetector):
    """Any single-stage detector of mmdet, preceded by a scene module.

    Args:
        scene_loss (dict, optional): Config of :class:`ruas_mm.SceneLoss`; None trains with the task loss alone.
        scene_loss_weight (float): The paper's lambda.
        **kwargs (Any): Options of ``mmdet.SingleStageDetector``: backbone, neck, bbox_head, data_preprocessor, …
    """

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detect objects; the result of an image does not depend on the other images of the batch.

        Only images with the same padded size are processed together. Otherwise, the padding of smaller images would
        influence their features through the convolutions.

        Args:
            batch_inputs (Tensor): Images of shape (N, 3, H, W) as the data preprocessor returns them.
            batch_data_samples (SampleList): Their samples.
            rescale (bool): Whether boxes are given in the original image's pixels.

        Returns:
            SampleList: The samples with ``pred_instances``.
        """
        groups = defaultdict(list)
        for index, sample in enumerate(batch_data_samples):
            groups[tuple(sample.metainfo.get('pad_shape', batch_inputs.shape[-2:]))[:2]].append(index)
        results: dict[int, Any] = {}
        for (height, width), indices in groups.items():
            samples = [batch_data_samples[index] for index in indices]
            predicted = super().predict(batch_inputs[indices, :, :height, :width], samples, rescale=rescale)
            results.update(zip(indices, predicted, strict=True))
        return [results[index] for index in range(len(batch_data_samples))]
