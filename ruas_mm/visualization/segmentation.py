"""Visualizer that draws segmentations next to the image that the segmentor receives."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from ruas_mm.visualization.panels import output_picture, scene_panels, side_by_side, to_picture


class RUASSegVisualizer(SegLocalVisualizer):
    """Draws input, enhanced u^K, illumination t^K, prediction and ground truth side by side.

    It can replace mmseg's visualizer in any config; without a scene module, the two pictures of the scene are omitted.
    With a scene module, the input is the image that the model received, which the pipeline may have darkened. Ignored
    pixels are not painted.

    Args:
        name (str): Name under which the hooks find it.
        labels_on (str): ``enhanced`` paints the labels over u^K, ``input`` over the input.
        **kwargs (Any): Options of ``mmseg.SegLocalVisualizer``: vis_backends, alpha, …

    Raises:
        ValueError: If ``labels_on`` is invalid.
    """

    def __init__(self, name: str = 'visualizer', labels_on: str = 'enhanced', **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if labels_on not in ('enhanced', 'input'):
            raise ValueError(f"labels_on of RUASSegVisualizer must be 'enhanced' or 'input', got {labels_on!r}.")
        self.labels_on = labels_on

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool | None = True,
    ) -> None:
        """Draw one sample, then show it, write it to a file or pass it to the backends.

        Args:
            name (str): Name of the picture.
            image (np.ndarray): RGB original image, shape (H, W, 3), 0 … 255; the pictures get its size.
            data_sample (SegDataSample, optional): Its scene, ground truth and prediction, if available.
            draw_gt (bool): Whether to draw the ground truth.
            draw_pred (bool): Whether to draw the prediction.
            show (bool): Whether to open a window.
            wait_time (float): Time for which the window is shown, in seconds; 0 waits for a key.
            out_file (str, optional): File to write.
            step (int): Step number for the backends.
            with_labels (bool, optional): Whether to write the classes' names.
        """
        panels = {'input': image.clip(0, 255).astype(np.uint8)}
        if data_sample is not None:
            data_sample = data_sample.cpu()
            if 'scene' in data_sample:
                shape = image.shape[:2]
                panels['input'] = mmcv.imresize(to_picture(data_sample.scene.observation), shape[::-1])
                panels.update(scene_panels(data_sample.scene, shape))
            canvas = panels['input'] if self.labels_on == 'input' else panels.get('scene feature', panels['input'])
            if draw_pred and 'pred_sem_seg' in data_sample:
                panels['prediction'] = self._blend(canvas, data_sample.pred_sem_seg, with_labels)
            if draw_gt and 'gt_sem_seg' in data_sample:
                panels['ground truth'] = self._blend(canvas, data_sample.gt_sem_seg, with_labels)
        output_picture(self, name, side_by_side(panels), show, wait_time, out_file, step)

    def _blend(self, image: np.ndarray, labels: PixelData, with_labels: bool | None) -> np.ndarray:
        """Paint labels of any size over a picture, leaving pixels without a known class unchanged."""
        classes, palette = self.dataset_meta['classes'], self.dataset_meta['palette']
        ids = mmcv.imresize(np.asarray(labels.data)[0].astype(np.int32), image.shape[1::-1], interpolation='nearest')
        painted = self._draw_sem_seg(image, PixelData(data=ids[None]), classes, palette, with_labels)
        faded = (image * (1 - self.alpha)).astype(np.uint8)  # where mmseg paints nothing
        unknown = (ids >= len(classes)) & (painted == faded).all(axis=2)  # and where no name was written
        painted[unknown] = image[unknown]
        return painted
