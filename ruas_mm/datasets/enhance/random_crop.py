"""Random crop of an image and its ground truth."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform


class RandomCrop(BaseTransform):
    """Crop the image at a random position, and its ground truth at the same position.

    Modified keys: ``img`` and, if present, ``gt``. Added key: ``img_shape``.

    Args:
        crop_size (tuple[int, int]): Maximum width and height in pixels; smaller sides are not cropped.

    Raises:
        ValueError: If a side is smaller than 1.
    """

    def __init__(self, crop_size: tuple[int, int]) -> None:
        if min(crop_size) < 1:
            raise ValueError(f'crop_size of RandomCrop must be at least 1 pixel, got {tuple(crop_size)}.')
        self.crop_size = tuple(crop_size)

    def transform(self, results: dict) -> dict:
        """Crop a sample at a position drawn from numpy's global generator, which mmengine seeds in each worker.

        Args:
            results (dict): The sample.

        Returns:
            dict: The same dict.
        """
        height, width = results['img'].shape[:2]
        crop_width, crop_height = min(width, self.crop_size[0]), min(height, self.crop_size[1])
        top, left = np.random.randint(height - crop_height + 1), np.random.randint(width - crop_width + 1)
        for key in {'img', 'gt'} & set(results):
            results[key] = results[key][top : top + crop_height, left : left + crop_width]
        results['img_shape'] = (crop_height, crop_width)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'
