"""Write predictions to a file, without the maps of the scene module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.utils import apply_to
from torch import nn
from torch.utils.data import DataLoader

# Full-size maps of the scene and of a segmentor's scores, and data that the reader of the file already has.
_EXCLUDED = {'scene', 'feature', 'illumination', 'seg_logits', 'gt', 'gt_img', 'input'}


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` with smaller files.

    It omits ``scene`` and ``seg_logits``, which are several full-size float maps per image, and copies tensors that are
    views, so that only their own values are stored. Label maps are stored as 8-bit integers if all ids fit. It works
    with the evaluator of mmengine and with that of mmagic, which requires further methods of a metric.

    Args:
        out_file_path (str): Pickle file to write.
        collect_device (str): ``cpu`` or ``gpu``.
        collect_dir (str, optional): Folder used to collect the results of all processes.
    """

    SAMPLER_MODE, sample_model = 'normal', 'orig'  # for mmagic: use the same images, in the same pass, as PSNR

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Store the size of the test set; called by mmagic's evaluator."""
        self.size = len(dataloader.dataset)

    def get_metric_sampler(self, module: nn.Module, dataloader: DataLoader, metrics: Sequence[Any]) -> DataLoader:
        """Return the data loader from which mmagic's loops take the batches."""
        return dataloader

    def evaluate(self, size: int | None = None) -> dict:
        """Write the file.

        Args:
            size (int, optional): Number of images in the test set; defaults to the size stored by :meth:`prepare`.

        Returns:
            dict: An empty dict.
        """
        return super().evaluate(self.size if size is None else size)

    def process(self, data_batch: dict, predictions: Sequence[dict]) -> None:
        """Store the predictions of one batch.

        Args:
            data_batch (dict): Not used.
            predictions (Sequence[dict]): Data samples as dicts.
        """
        kept = [{key: value for key, value in sample.items() if key not in _EXCLUDED} for sample in predictions]
        for sample in kept:
            for key in (
                'pred_sem_seg',
                'gt_sem_seg',
            ):  # with the ground truth, metrics can be computed from the file alone
                if key in sample:
                    labels = sample[key]['data']
                    fits = labels.min() >= 0 and labels.max() < 256
                    sample[key] = {'data': labels.byte() if fits else labels}
        super().process(data_batch, apply_to(kept, torch.is_tensor, torch.clone))
