"""Load and validate label maps."""

from __future__ import annotations

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations

from ruas_mm.datasets.image_size import check_image, read_header

_IGNORED = 255


class LoadSegLabels(LoadAnnotations):
    """``mmseg.LoadAnnotations`` that also checks that the file is a valid label map of its image.

    Without these checks, wrong sizes, colour images and unknown ids cause obscure errors on the GPU or go unnoticed.
    Every sample of a data set must have a label map. Images that do not come from a data set, such as those passed by
    mmseg's inference interfaces (a dict with only the image or its path), are accepted without labels.

    Args:
        num_classes (int, optional): Number of classes, for data sets that do not provide it, such as those of mmseg: 19
            for Dark Zurich and Nighttime Driving. Defaults to None, which uses the value of the data set; if there is
            none, the ids are not checked.
        reduce_zero_label (bool, optional): See ``mmseg.LoadAnnotations``. Defaults to None, which uses the value of the
            data set.
        backend_args (dict, optional): mmengine file backend; None for local files.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        reduce_zero_label: bool | None = None,
        backend_args: dict | None = None,
    ) -> None:
        # Only Pillow keeps the ids of label maps with a palette; other backends load the palette's colours.
        super().__init__(reduce_zero_label, backend_args, imdecode_backend='pillow')
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        """Load the label map of a sample.

        Args:
            results (dict): The sample.

        Returns:
            dict: The sample with ``gt_seg_map``; unchanged if it has no label map and does not come from a data set.
        """
        # The data sets of mmengine add sample_idx to each sample.
        if 'seg_map_path' not in results and 'sample_idx' not in results:
            return results
        return super().transform(results)

    def _load_seg_map(self, results: dict) -> None:
        """Load ``results['seg_map_path']`` as mmseg does, and validate it.

        Args:
            results (dict): The sample. If its image is loaded, the label map must have the size ``ori_shape``.

        Raises:
            FileNotFoundError: If the label map does not exist.
            ValueError: If the sample has no label map, the file is not an image of this size with one 8-bit channel, or
                it contains ids that are neither classes nor ignored; the message names the file and what was expected.
        """
        path = results.get('seg_map_path')
        if path is None:
            raise ValueError(
                f'{results.get("img_path")} has no label map; set seg_map_path in the data_prefix of its data set, '
                'or remove LoadSegLabels from the pipeline.'
            )
        self._check_format(path, results.get('ori_shape'))
        try:
            super()._load_seg_map(results)
        except Exception:
            check_image(path, 'a label map', self.backend_args)  # raises a clear error if the file is damaged
            raise
        self._check_ids(path, results)

    def _check_format(self, path: str, shape: tuple | None) -> None:
        """Check size and channels, reading only the header."""
        mode, height, width, _ = read_header(path, 'a label map', self.backend_args)
        if mode not in ('1', 'L', 'P'):
            raise ValueError(
                f'{path}: a label map must have one 8-bit channel with the class id of each pixel, got mode {mode}; '
                'colour-coded label maps cannot be used.'
            )
        if shape is not None and (height, width) != tuple(shape[:2]):
            raise ValueError(
                f'{path}: the size must be {shape[1]}×{shape[0]} as that of the image, got {width}×{height}.'
            )

    def _check_ids(self, path: str, results: dict) -> None:
        num_classes = self.num_classes or results.get('num_classes')
        if num_classes is None:
            return
        labels = results['gt_seg_map']
        unknown = labels[(labels >= num_classes) & (labels != _IGNORED)]
        if unknown.size:
            shift = int(self.reduce_zero_label)  # the message states ids as they are in the file
            last = max([num_classes - 1, *(results.get('label_map') or ())]) + shift
            found = ', '.join(str(label + shift) for label in np.unique(unknown).tolist())
            raise ValueError(f'{path}: ids must be from 0 to {last}, or {_IGNORED} to be ignored, got {found}.')
