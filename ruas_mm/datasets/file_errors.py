"""Errors of a pipeline, told as what is wrong with the file that it loaded."""

from __future__ import annotations

from typing import Any

from ruas_mm.datasets.image_size import check_image


class FileErrors:
    """Mixin of data sets: a damaged image stops training or testing with one sentence that names it.

    Whatever a pipeline loads images with, a damaged one ends in an error of the host's (``failed to load image``, or
    one of OpenCV). Only then are the files of the sample looked at, so this costs nothing otherwise, and the pipelines
    keep the host's ``LoadImageFromFile``, which its inference interfaces look for by name.

    OpenCV before 4.11 decodes what there is of half a JPEG without an error; all versions refuse half a PNG.
    """

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a sample; see ``mmengine.dataset.BaseDataset.prepare_data``.

        Args:
            idx (int): Number of the sample.

        Returns:
            Any: What the pipeline makes of it.

        Raises:
            FileNotFoundError: If an image of the sample is missing.
            ValueError: If it is damaged.
        """
        try:
            return super().prepare_data(idx)
        except Exception:
            info = self.get_data_info(idx)
            for key in ('img_path', 'gt_path'):
                if key in info:
                    check_image(info[key], backend_args=self.backend_args)
            raise
