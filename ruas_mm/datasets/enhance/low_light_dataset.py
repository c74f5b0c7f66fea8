"""Low-light images with or without ground truth."""

from __future__ import annotations

import os.path as osp
from typing import Any

from mmengine.dataset import BaseDataset

from ruas_mm.datasets.file_errors import FileErrors
from ruas_mm.datasets.image_list import list_files, read_image_list
from ruas_mm.datasets.image_size import image_size
from ruas_mm.utils.images import IMAGE_SUFFIXES


class LowLightDataset(FileErrors, BaseDataset):
    """Low-light images in a folder and its sub-folders and, optionally, their ground truth in a second folder.

    An image and its ground truth have the same path relative to their folders, except for the suffix, which may differ.
    The usual data sets are read in the layout in which they are distributed:

    ============================ =========================================================================
    LOL (v1)                     ``data_prefix=dict(img_path='our485/low', gt_path='our485/high')``
    LOL-v2, real (689 and 100)   ``data_prefix=dict(img_path='Train/Low', gt_path='Train/Normal')`` and
                                 ``name_prefix=('low', 'normal')``
    MIT-Adobe FiveK              ``data_prefix=dict(img_path='input', gt_path='expertC')`` and an ``ann_file``
    images without ground truth  nothing, or ``data_prefix=dict(img_path='some/folder')``
    ============================ =========================================================================

    Args:
        ann_file (str): A text file with one image per line, given by its path relative to the image folder, with or
            without suffix; ``tools/dataset_tools/split.py`` writes such lists. If empty, all images are used, in
            numerical order.
        data_prefix (dict, optional): ``img_path`` and ``gt_path``, the folders of low-light images and ground truth
            relative to ``data_root``. If ``gt_path`` is missing or None, there is no ground truth. ``img_path``
            defaults to ``data_root`` itself.
        name_prefix (tuple[str, str]): Prefixes of the file names of low-light images and of ground truth, for data sets
            in which they differ. Defaults to empty prefixes.
        backend_args (dict, optional): mmengine file backend; None for local files.
        **kwargs (Any): See ``mmengine.dataset.BaseDataset``.

    Raises:
        FileNotFoundError: If a folder, an image, its ground truth or the list is missing.
        ValueError: If a file is not an image, an image has several ground truths or one of another size, or the list
            names an image twice. All errors are raised when the data set is initialised, with a message that names the
            file and the line.
    """

    def __init__(
        self,
        ann_file: str = '',
        *,
        data_prefix: dict | None = None,
        name_prefix: tuple[str, str] = ('', ''),
        backend_args: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.name_prefix = tuple(name_prefix)
        self.backend_args = backend_args
        data_prefix = {key: folder for key, folder in (data_prefix or {}).items() if folder is not None}
        super().__init__(ann_file, data_prefix={'img_path': '', **data_prefix}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the list and the sizes of the images (from their headers, without decoding them).

        Returns:
            list[dict]: One dict per image: ``img_path``, ``img_id`` (its path relative to the folder, with suffix),
            ``height``, ``width`` and, with ground truth, ``gt_path``.
        """
        folder = self.data_prefix['img_path']
        images = self._files(folder)
        if not images:
            raise FileNotFoundError(f'{folder} contains no images.')
        truths = None
        if 'gt_path' in self.data_prefix:
            truths = _by_stem(self._files(self.data_prefix['gt_path']))
        return [self._load_image(name, truths) for name in (self._listed(images) if self.ann_file else images)]

    def _files(self, folder: str) -> list[str]:
        """Return the names of the images below a folder."""
        names = list_files(folder, backend_args=self.backend_args)
        return [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]

    def _listed(self, images: list[str]) -> list[str]:
        """Return the images that ``ann_file`` lists, in its order."""
        folder = self.data_prefix['img_path']
        names, stems = set(images), _by_stem(images)
        chosen: dict[str, None] = {}
        for where, entry in read_image_list(self.ann_file, self.backend_args):
            found = [entry] if entry in names else stems.get(entry, [])
            if not found:
                raise FileNotFoundError(f'{where}: there is no image {entry!r} in {folder}.')
            if len(found) > 1:
                raise ValueError(f'{where}: {entry!r} may be {" or ".join(found)} in {folder}; add the suffix.')
            if found[0] in chosen:
                raise ValueError(f'{where}: image {entry!r} is listed twice.')
            chosen[found[0]] = None
        return list(chosen)

    def _load_image(self, name: str, truths: dict[str, list[str]] | None) -> dict:
        path = osp.join(self.data_prefix['img_path'], name)
        height, width = image_size(path, self.backend_args)
        info = dict(img_path=path, img_id=name, height=height, width=width)
        if truths is not None:
            info['gt_path'] = self._ground_truth(path, name, truths)
            size = image_size(info['gt_path'], self.backend_args)
            if size != (height, width):
                raise ValueError(
                    f'{info["gt_path"]}: the size must be {width}×{height} as that of {path}, got {size[1]}×{size[0]}.'
                )
        return info

    def _ground_truth(self, path: str, name: str, truths: dict[str, list[str]]) -> str:
        place, base = osp.split(osp.splitext(name)[0])
        dark, bright = self.name_prefix
        if not base.startswith(dark):
            raise ValueError(f'{path}: the file name must begin with {dark!r} (name_prefix), got {base!r}.')
        stem = osp.join(place, bright + base[len(dark) :])
        found = truths.get(stem, [])
        folder = self.data_prefix['gt_path']
        if not found:
            raise FileNotFoundError(
                f'{path} has no ground truth, expected {osp.join(folder, stem)} with an image suffix; '
                'to use only some of the images, list them in ann_file.'
            )
        if len(found) > 1:
            raise ValueError(f'{path}: the ground truth may be {" or ".join(found)} in {folder}; keep one of them.')
        return osp.join(folder, found[0])


def _by_stem(names: list[str]) -> dict[str, list[str]]:
    """Group file names by their stem."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(osp.splitext(name)[0], []).append(name)
    return found
