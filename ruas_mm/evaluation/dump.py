"""Predictions written to a file, without the scene's maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.utils import apply_to
from torch import nn
from torch.utils.data import DataLoader

# Full-size maps: of a scene, of a segmentor's scores, and what the reader of the file has anyway.
_LEFT_OUT = {'scene', 'feature', 'illumination', 'seg_logits', 'gt', 'gt_img', 'input'}


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` without what would swell the file.

    That is ``scene`` and ``seg_logits``, several full-size float maps an image, and the storage behind tensors that are
    views of it. Label maps are kept in 8 bits where that holds all their ids. Evaluators of mmengine and of mmagic,
    which ask more of a metric, take it.

    Args:
        out_file_path (str): Pickle file to write.
        collect_device (str): ``cpu`` or ``gpu``.
        collect_dir (str, optional): Folder for the exchange between processes.
    """

    SAMPLER_MODE, sample_model = 'normal', 'orig'  # for mmagic: see the images that PSNR and its like see, with them

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Get to know the test set, as mmagic's evaluator does with its metrics."""
        self.size = len(dataloader.dataset)

    def get_metric_sampler(self, module: nn.Module, dataloader: DataLoader, metrics: Sequence[Any]) -> DataLoader:
        """Return what mmagic's loops take the batches from."""
        return dataloader

    def evaluate(self, size: int | None = None) -> dict:
        """Write the file.

        Args:
            size (int, optional): Number of images in the test set; by default what :meth:`prepare` found.

        Returns:
            dict: Nothing.
        """
        return super().evaluate(self.size if size is None else size)

    def process(self, data_batch: dict, predictions: Sequence[dict]) -> None:
        """Keep the predictions of one batch.

        Args:
            data_batch (dict): Not used.
            predictions (Sequence[dict]): Data samples as dicts.
        """
        kept = [{key: value for key, value in sample.items() if key not in _LEFT_OUT} for sample in predictions]
        for sample in kept:
            for key in ('pred_sem_seg', 'gt_sem_seg'):  # both, so that metrics can be computed from the file alone
                if key in sample:
                    labels = sample[key]['data']
                    fits = labels.min() >= 0 and labels.max() < 256
                    sample[key] = {'data': labels.byte() if fits else labels}
        super().process(data_batch, apply_to(kept, torch.is_tensor, torch.clone))
