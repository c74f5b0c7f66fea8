"""Predictions written to a file, without the scene's maps."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.evaluator import DumpResults


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` without ``scene``: three full-size float maps an image would swell the file.

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
        super().process(data_batch, [{k: v for k, v in sample.items() if k != 'scene'} for sample in predictions])
