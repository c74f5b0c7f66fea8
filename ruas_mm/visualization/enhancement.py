"""Visualizer that draws enhanced images next to their input."""

from __future__ import annotations

import numpy as np
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from ruas_mm.visualization.panels import output_picture, side_by_side, to_picture


class RUASEnhanceVisualizer(Visualizer):
    """Draws input, enhanced image, illumination t^K and ground truth side by side, as far as they are available.

    Its arguments are those of ``mmengine.visualization.Visualizer``.
    """

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: BaseDataElement | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
    ) -> None:
        """Draw one sample, then show it, write it to a file or pass it to the backends.

        Args:
            name (str): Name of the picture.
            image (np.ndarray): Dark RGB image, uint8 of shape (H, W, 3).
            data_sample (BaseDataElement, optional): Its ``enhanced`` and ``illumination`` (floats in [0, 1]) and ``gt``
                (uint8), each RGB of shape (3, H, W), if available.
            draw_gt (bool): Whether to draw the ground truth.
            draw_pred (bool): Whether to draw the output of the model.
            show (bool): Whether to open a window.
            wait_time (float): Time for which the window is shown, in seconds; 0 waits for a key.
            out_file (str, optional): File to write.
            step (int): Step number for the backends.
        """
        panels = {'input': image}
        sample = BaseDataElement() if data_sample is None else data_sample
        if draw_pred and 'enhanced' in sample:
            panels['enhanced'] = to_picture(sample.enhanced)
            panels['illumination'] = to_picture(sample.illumination)
        if draw_gt and 'gt' in sample:
            panels['ground truth'] = to_picture(sample.gt / 255)
        output_picture(self, name, side_by_side(panels), show, wait_time, out_file, step)
