"""Images with boxes, and which of them serve for training."""

from __future__ import annotations

from mmdet.datasets import BaseDetDataset

from ruas_mm.datasets.file_errors import FileErrors


class BoxDataset(FileErrors, BaseDetDataset):
    """Base of the detection data sets here: what they have in common once the labels are read."""

    def filter_data(self) -> list[dict]:
        """Drop, for training, images without objects or too small ones, as ``filter_cfg`` says.

        Returns:
            list[dict]: What is left of ``data_list``.

        Raises:
            ValueError: If nothing is left.
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
                f'{self.ann_file or self.data_prefix["img_path"]}: expected images that filter_cfg keeps, found none '
                f'among {len(self.data_list)} with at least {min_objects} boxes and {min_size} pixels on each side.'
            )
        return kept
