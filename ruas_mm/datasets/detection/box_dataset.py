"""Base class of the detection data sets, which filters the images for training."""

from __future__ import annotations

from mmdet.datasets import BaseDetDataset

from ruas_mm.datasets.file_errors import FileErrors


class BoxDataset(FileErrors, BaseDetDataset):
    """Base class of the detection data sets of this package."""

    def filter_data(self) -> list[dict]:
        """Remove images without objects and images that are too small from the training data, following ``filter_cfg``.

        Returns:
            list[dict]: The remaining entries of ``data_list``.

        Raises:
            ValueError: If no image remains.
        """
        if self.test_mode or self.filter_cfg is None:
            return self.data_list
        min_objects = int(self.filter_cfg.get('filter_empty_gt', False))
        min_size = self.filter_cfg.get('min_size', 0)
        kept = [
            info
            for info in self.data_list
            if len(info['instances']) >= min_objects and min(info['width'], info['height']) >= min_size
        ]
        if not kept:
            raise ValueError(
                f'{self.ann_file or self.data_prefix["img_path"]}: filter_cfg must keep at least one image, got none '
                f'among {len(self.data_list)} with at least {min_objects} boxes and {min_size} pixels on each side.'
            )
        return kept
