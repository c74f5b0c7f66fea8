"""Hook that draws the images of a test, which mmengine does not provide."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement


class EnhanceVisualizationHook(Hook):
    """Draws each image of a test with the visualizer; see :class:`ruas_mm.RUASEnhanceVisualizer`.

    Args:
        draw (bool): Whether to draw; enabled by ``tools/test.py --show-dir``.
        test_out_dir (str, optional): Folder for the pictures, in which they have the same relative paths as the
            images. None passes them to the visualizer's backends.
    """

    def __init__(self, draw: bool = False, test_out_dir: str | None = None) -> None:
        self.draw = draw
        self.test_out_dir = test_out_dir

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[BaseDataElement]
    ) -> None:
        """Draw the images of one batch.

        Args:
            runner (Runner): Holds the visualizer.
            batch_idx (int): Index of the batch.
            data_batch (dict): ``inputs``: uint8 BGR images of shape (3, H, W), as passed to the model.
            outputs (Sequence[BaseDataElement]): Outputs of the model.
        """
        if not self.draw:
            return
        for bgr, sample in zip(data_batch['inputs'], outputs, strict=True):
            out_file = None if self.test_out_dir is None else osp.join(self.test_out_dir, sample.img_id)
            runner.visualizer.add_datasample(
                osp.splitext(sample.img_id)[0],
                bgr.flip(0).permute(1, 2, 0).cpu().numpy(),
                sample,
                out_file=out_file,
                step=batch_idx,
            )
