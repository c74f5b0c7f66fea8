"""Pack a sample into the inputs of an enhancement model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement
from torch import Tensor


class PackEnhanceInputs(BaseTransform):
    """Convert a sample to tensors.

    Required key: ``img`` (H×W×3, BGR, as mmcv loads it). Result: ``inputs``, the image as a tensor of shape (3, H, W)
    with its dtype and BGR order unchanged, for :class:`ruas_mm.RUASDataPreprocessor`; and ``data_samples`` with the
    meta keys and, if there is ground truth, ``gt`` of shape (3, H, W) in RGB order, like the output of the model.

    Args:
        meta_keys (Sequence[str]): Further keys of a sample that are kept as meta information if they exist.
    """

    def __init__(self, meta_keys: Sequence[str] = ('img_id', 'img_path', 'gt_path', 'ori_shape')) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack a sample.

        Args:
            results (dict): The sample.

        Returns:
            dict: ``inputs`` and ``data_samples``.
        """
        sample = BaseDataElement(metainfo={key: results[key] for key in self.meta_keys if key in results})
        if 'gt' in results:
            sample.gt = _tensor(results['gt'][..., ::-1])
        return dict(inputs=_tensor(results['img']), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
