"""Report pipeline errors that are caused by a damaged or missing image as an error about that file."""

from __future__ import annotations

from typing import Any

from ruas_mm.datasets.image_size import check_image


class FileErrors:
    """Mixin for data sets: a damaged image stops training or testing with an error message that names the file.

    Whichever transform loads the images, a damaged one raises an error of the host library (``failed to load image``,
    or an error of OpenCV). The files of the sample are checked only after such an error, so there is no cost otherwise,
    and pipelines can keep ``LoadImageFromFile``, which the host's inference interfaces look up by name.

    A truncated JPEG is decoded without an error by OpenCV before 4.11; a truncated PNG raises one in all versions.
    """

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a sample; see ``mmengine.dataset.BaseDataset.prepare_data``.

        Args:
            idx (int): Index of the sample.

        Returns:
            Any: Output of the pipeline.

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
