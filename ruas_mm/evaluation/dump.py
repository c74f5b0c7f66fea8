"""Predictions written to a file, without the scene's maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import DumpResults
from mmengine.utils import apply_to


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` without what would swell the file.

    That is ``scene``, three full-size float maps an image, and the storage behind tensors that are views of it.

    Args:
        out_file_path (str): Pickle file to write.
        collect_device (str): ``cpu`` or ``gpu``.
        collect_dir (str, optional): Folder for the exchange between processes.
    """

    def process(self, data_batch: dict, predictions: Sequence[dict]) -> None:
        """Keep the predictions of one batch.

        Args:
            data_batch (dict): Not used.
            predictions (Sequence[dict]): Data samples as dicts.
        """
        kept = [{key: value for key, value in sample.items() if key != 'scene'} for sample in predictions]
        super().process(data_batch, apply_to(kept, torch.is_tensor, torch.clone))
