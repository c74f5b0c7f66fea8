"""Visualizer that draws detections next to the image that the detector receives."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer

from ruas_mm.visualization.panels import output_picture, scene_panels, side_by_side


class RUASDetVisualizer(DetLocalVisualizer):
    """Draws input, enhanced u^K, illumination t^K, detections and ground truth side by side.

    It can replace mmdet's visualizer in any config; without a scene module, the two pictures of the scene are omitted.

    Args:
        name (str): Name under which the hooks find it.
        boxes_on (str): ``enhanced`` draws the boxes on u^K, ``input`` on the original image.
        **kwargs (Any): Options of ``mmdet.DetLocalVisualizer``: vis_backends, line_width, …

    Raises:
        ValueError: If ``boxes_on`` is invalid.
    """

    def __init__(self, name: str = 'visualizer', boxes_on: str = 'enhanced', **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if boxes_on not in ('enhanced', 'input'):
            raise ValueError(f"boxes_on of RUASDetVisualizer must be 'enhanced' or 'input', got {boxes_on!r}.")
        self.boxes_on = boxes_on

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: DetDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draw one sample, then show it, write it to a file or pass it to the backends.

        Args:
            name (str): Name of the picture.
            image (np.ndarray): RGB original image, shape (H, W, 3), 0 … 255.
            data_sample (DetDataSample, optional): Its scene, ground truth and predictions, if available.
            draw_gt (bool): Whether to draw the ground truth.
            draw_pred (bool): Whether to draw the predictions.
            show (bool): Whether to open a window.
            wait_time (float): Time for which the window is shown, in seconds; 0 waits for a key.
            out_file (str, optional): File to write.
            pred_score_thr (float): Smallest score of a detection to be drawn, in [0, 1].
            step (int): Step number for the backends.
        """
        image = image.clip(0, 255).astype(np.uint8)
        panels = {'input': image}
        canvas = image
        if data_sample is not None:
            data_sample = data_sample.cpu()
            if 'scene' in data_sample:
                panels.update(scene_panels(data_sample.scene, image.shape[:2]))
                canvas = panels['scene feature'] if self.boxes_on == 'enhanced' else image
            classes, palette = self.dataset_meta.get('classes'), self.dataset_meta.get('palette')
            if draw_pred and 'pred_instances' in data_sample:
                found = data_sample.pred_instances
                found = found[found.scores > pred_score_thr]
                panels['detections'] = self._draw_instances(canvas, found, classes, palette)
            if draw_gt and 'gt_instances' in data_sample:
                panels['ground truth'] = self._draw_instances(canvas, data_sample.gt_instances, classes, palette)
        output_picture(self, name, side_by_side(panels), show, wait_time, out_file, step)
