"""Label maps, looked at before they are believed."""

from __future__ import annotations

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations

from ruas_mm.datasets.image_size import check_image, read_header

_IGNORED = 255


class LoadSegLabels(LoadAnnotations):
    """``mmseg.LoadAnnotations`` that refuses what is no label map of its image.

    Wrong sizes, colours and unknown ids else end in obscure errors on the GPU, or in none at all. Every sample of a
    data set must have its label map. An image that comes from no data set, as the inference interfaces of mmseg pass it
    (a dict with the image or its path alone), passes without labels.

    Args:
        num_classes (int, optional): For data sets that do not tell it, mmseg's own among them: 19 for Dark Zurich and
            Nighttime Driving. Defaults to None: what the data set says, and without that ids are not checked.
        reduce_zero_label (bool, optional): See ``mmseg.LoadAnnotations``. Defaults to None: what the data set says.
        backend_args (dict, optional): mmengine file backend; None for local files.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        reduce_zero_label: bool | None = None,
        backend_args: dict | None = None,
    ) -> None:
        # Pillow alone keeps the ids of maps with a palette; others would load its colours.
        super().__init__(reduce_zero_label, backend_args, imdecode_backend='pillow')
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        """Load the label map of a sample.

        Args:
            results (dict): The sample.

        Returns:
            dict: The sample with ``gt_seg_map``; as it was if it has no label map and comes from no data set.
        """
        # Data sets of mmengine number their samples.
        if 'seg_map_path' not in results and 'sample_idx' not in results:
            return results
        return super().transform(results)

    def _load_seg_map(self, results: dict) -> None:
        """Load ``results['seg_map_path']`` as mmseg does, and check it.

        Args:
            results (dict): The sample. ``ori_shape`` is the size that its map must have, if the image is loaded.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the sample names no map, or it is not an image of that size with one channel of 8 bits, or
                holds ids that are neither classes nor ignored; the message names the file and what was expected.
        """
        path = results.get('seg_map_path')
        if path is None:
            raise ValueError(
                f'{results.get("img_path")}: has no label map; set seg_map_path in the data_prefix of its data set, '
                'or take LoadSegLabels out of the pipeline.'
            )
        self._check_form(path, results.get('ori_shape'))
        try:
            super()._load_seg_map(results)
        except Exception:
            check_image(path, 'a label map', self.backend_args)  # names the damage, if that is the cause
            raise
        self._check_ids(path, results)

    def _check_form(self, path: str, shape: tuple | None) -> None:
        """Check size and channels, from the header alone."""
        mode, height, width, _ = read_header(path, 'a label map', self.backend_args)
        if mode not in ('1', 'L', 'P'):
            raise ValueError(
                f'{path}: expected one channel of 8 bits with the id of the class in each pixel, found mode {mode}; '
                'coloured label maps are for the eye only.'
            )
        if shape is not None and (height, width) != tuple(shape[:2]):
            raise ValueError(f'{path}: expected the size of its image, {shape[1]}×{shape[0]}, found {width}×{height}.')

    def _check_ids(self, path: str, results: dict) -> None:
        num_classes = self.num_classes or results.get('num_classes')
        if num_classes is None:
            return
        labels = results['gt_seg_map']
        unknown = labels[(labels >= num_classes) & (labels != _IGNORED)]
        if unknown.size:
            shift = int(self.reduce_zero_label)  # speak of the ids in the file
            last = max([num_classes - 1, *(results.get('label_map') or ())]) + shift
            found = ', '.join(str(label + shift) for label in np.unique(unknown).tolist())
            raise ValueError(f'{path}: expected ids from 0 to {last}, or {_IGNORED} for ignored, found {found}.')
