"""Base class of the segmentation data sets with images and label maps in two folders."""

from __future__ import annotations

import os.path as osp
from typing import Any

from mmseg.datasets import BaseSegDataset

from ruas_mm.datasets.file_errors import FileErrors
from ruas_mm.datasets.image_list import list_files, read_image_list


class PairedSegDataset(FileErrors, BaseSegDataset):
    """Base class of the segmentation data sets of this package, which finds missing files during initialisation.

    Subclasses define the layout by class attributes: ``DATA_PREFIX``, the default folders; ``IMG_SUFFIX``, one or more
    suffixes of the image names; and ``SEG_MAP_SUFFIX``, the suffix of the label map names. The path relative to the
    folder, without this suffix, is the id of the image and must be the same for its label map.

    Args:
        ann_file (str): A text file with one image per line, given by id or name (with or without ``.png``), relative to
            ``data_prefix['img_path']``; ``tools/dataset_tools/split.py`` writes such lists. If empty, all images are
            used, in numerical order.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``, the folders of images and label maps relative
            to ``data_root``. Use ``seg_map_path=None`` with ``test_mode=True`` for images without labels.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder, an image, its label map or the list is missing.
        ValueError: If two images have the same id, or the list is damaged or names an image twice.
    """

    DATA_PREFIX: dict[str, str]
    IMG_SUFFIX: tuple[str, ...]
    SEG_MAP_SUFFIX: str

    def __init__(self, ann_file: str = '', *, data_prefix: dict | None = None, **kwargs: Any) -> None:
        data_prefix = {**self.DATA_PREFIX, **(data_prefix or {})}
        if data_prefix['seg_map_path'] is None:
            if not kwargs.get('test_mode', False):
                raise ValueError(
                    "data_prefix['seg_map_path'] must be a folder unless test_mode=True, got None: training requires "
                    'labels.'
                )
            del data_prefix['seg_map_path']  # mmengine can only join strings
        super().__init__(ann_file, self.IMG_SUFFIX, self.SEG_MAP_SUFFIX, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images and find their label maps, without opening the files.

        Returns:
            list[dict]: One dict per image: ``img_path``, ``img_id``, ``seg_map_path`` (unless there are no labels) and
            the keys that label map transforms need: ``num_classes``, ``label_map``, ``reduce_zero_label`` and
            ``seg_fields``.
        """
        images = self._files('img_path', 'images', self.img_suffix)
        labels = None
        if 'seg_map_path' in self.data_prefix:
            labels = self._files('seg_map_path', 'label maps', (self.seg_map_suffix,))
        chosen = self._listed(images) if self.ann_file else images
        infos = [self._info(image_id, images[image_id], labels) for image_id in chosen]
        if not self.ann_file:
            self._check_orphans(images, labels or {})
        return infos

    def _files(self, prefix: str, what: str, suffixes: tuple[str, ...]) -> dict[str, str]:
        """Return the names of all files with these suffixes below a folder, by the id of their image."""
        folder = self.data_prefix[prefix]
        found: dict[str, str] = {}
        for name in list_files(folder, backend_args=self.backend_args):
            suffix = next(filter(name.endswith, suffixes), None)
            if suffix is None:
                continue
            image_id = name.removesuffix(suffix)
            if image_id in found:
                raise ValueError(
                    f'{folder}: {found[image_id]} and {name} have the same id {image_id!r}; keep one of them.'
                )
            found[image_id] = name
        if not found:
            raise FileNotFoundError(f'{folder} contains no {what} (*{", *".join(suffixes)}).')
        return found

    def _listed(self, images: dict[str, str]) -> list[str]:
        """Return the ids of the images that ``ann_file`` lists, in its order."""
        ids = {form: image_id for image_id, name in images.items() for form in (osp.splitext(name)[0], name)}
        ids.update(zip(images, images, strict=True))
        chosen: dict[str, None] = {}
        for where, entry in read_image_list(self.ann_file, self.backend_args):
            if entry not in ids:
                raise FileNotFoundError(f'{where}: there is no image {entry!r} in {self.data_prefix["img_path"]}.')
            if ids[entry] in chosen:
                raise ValueError(f'{where}: image {entry!r} is listed twice.')
            chosen[ids[entry]] = None
        return list(chosen)

    def _check_orphans(self, images: dict[str, str], labels: dict[str, str]) -> None:
        """Raise an error for label maps without an image: training would silently use less data than it should."""
        for image_id, name in labels.items():
            if image_id not in images:
                raise FileNotFoundError(
                    f'{osp.join(self.data_prefix["seg_map_path"], name)} has no image in '
                    f'{self.data_prefix["img_path"]}; to use only some of the images, list them in ann_file.'
                )

    def _info(self, image_id: str, name: str, labels: dict[str, str] | None) -> dict:
        info = dict(
            img_path=osp.join(self.data_prefix['img_path'], name),
            img_id=image_id,
            num_classes=len(self.metainfo['classes']),
            label_map=self.label_map,
            reduce_zero_label=self.reduce_zero_label,
            seg_fields=[],
        )
        if labels is not None:
            folder = self.data_prefix['seg_map_path']
            if image_id not in labels:
                raise FileNotFoundError(
                    f'{info["img_path"]}: the label map {osp.join(folder, image_id + self.seg_map_suffix)} is missing; '
                    'to use only some of the images, list them in ann_file.'
                )
            info['seg_map_path'] = osp.join(folder, labels[image_id])
        return info
