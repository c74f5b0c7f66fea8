"""The DARK FACE data set: faces in night-time street scenes, read in the layout that its authors distribute."""

from __future__ import annotations

import os.path as osp
import re
from typing import Any

import numpy as np

from ruas_mm.datasets.detection.box_dataset import BoxDataset
from ruas_mm.datasets.image_list import list_files, read_image_list
from ruas_mm.datasets.image_size import image_size
from ruas_mm.datasets.text_files import parse_numbers, read_lines
from ruas_mm.utils.images import IMAGE_SUFFIXES


def _parse_box(text: str, where: str) -> list[float]:
    try:
        x1, y1, x2, y2 = parse_numbers(text.split())
    except ValueError:
        raise ValueError(f'{where}: a box must be four decimal numbers "x1 y1 x2 y2", got {text!r}.') from None
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f'{where}: a box must have x1 < x2 and y1 < y2, got {text!r}.')
    return [x1, y1, x2, y2]


def parse_label(path: str, backend_args: dict | None = None) -> np.ndarray:
    """Read one label file: the number of faces, then one line ``x1 y1 x2 y2`` per face.

    Each of the 6000 official files holds exactly the stated number of boxes, all with integer coordinates, at least
    one pixel large and inside the image. A file that does not is therefore treated as damaged and raises an error.

    Args:
        path (str): The label file.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        np.ndarray: Boxes, float32, of shape (N, 4), xyxy in pixels; N = 0 for an image without faces.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not have this format; the message names the file, the line and what was expected.
    """
    expected = 'the number of faces, then one line "x1 y1 x2 y2" per face; a single "0" if there is no face'
    lines = read_lines(path, expected, backend_args)
    head = lines[0].strip() if lines else ''
    if not re.fullmatch('[0-9]{1,7}', head):
        raise ValueError(f'{path}, line 1: the first line must be the number of faces, got {head!r}.')
    if len(lines) - 1 != int(head):
        raise ValueError(f'{path}, line 1: the number of boxes must be {head} as stated here, got {len(lines) - 1}.')
    boxes = [_parse_box(line, f'{path}, line {number}') for number, line in enumerate(lines[1:], start=2)]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


class DarkFaceDataset(BoxDataset):
    """The DARK FACE data set, or any folder of images with one label file in its format per image.

    The official layout is read without conversion: ``image/N.png`` and ``label/N.txt`` under ``data_root``. The public
    part has 6000 images of 1080×720 pixels with 43 849 faces; half of the faces are smaller than 11.5 pixels (square
    root of the area).

    Source: Yang et al., "Advancing Image Understanding in Poor Visibility Environments", IEEE TIP 2020.

    Args:
        ann_file (str): A text file, relative to ``data_root``, with one image per line, given by name (``12.png``) or
            id (``12``); ``tools/dataset_tools/split.py`` writes such lists. If empty, all images are used, in numerical
            order.
        data_prefix (dict, optional): ``img_path`` and ``label_path``, the folders of images and labels relative to
            ``data_root``. Defaults to ``dict(img_path='image', label_path='label')``. Use ``label_path=None`` with
            ``test_mode=True`` for images without labels.
        **kwargs: See ``mmdet.datasets.BaseDetDataset``. ``filter_cfg`` supports ``filter_empty_gt`` (bool) and
            ``min_size`` (of the shorter image side, in pixels). As everywhere in mmdet, nothing is filtered if
            ``test_mode=True``.

    Raises:
        FileNotFoundError: If an image, a label file or the list is missing.
        ValueError: If a label file, the list or an image is damaged, or a box extends beyond its image. All errors are
            raised when the data set is initialised, with a message that names the file and the line.
    """

    METAINFO = dict(classes=('face',), palette=[(220, 20, 60)])

    def __init__(self, ann_file: str = '', *, data_prefix: dict | None = None, **kwargs: Any) -> None:
        data_prefix = {'img_path': 'image', 'label_path': 'label', **(data_prefix or {})}
        if data_prefix['label_path'] is None:
            if not kwargs.get('test_mode', False):
                raise ValueError(
                    "data_prefix['label_path'] must be a folder unless test_mode=True, got None: training needs labels."
                )
            del data_prefix['label_path']  # mmengine can only join strings
        super().__init__(ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the list, the labels and the sizes of the images (from their headers, without decoding them).

        Returns:
            list[dict]: One dict per image: ``img_path``, ``img_id``, ``height``, ``width`` and ``instances``, a list of
            dicts with ``bbox`` (xyxy, pixels), ``bbox_label`` and ``ignore_flag``.
        """
        names = self._image_names()
        if not self.ann_file and 'label_path' in self.data_prefix:
            self._check_orphans(names)
        return [self._load_image(image_id, name) for image_id, name in names.items()]

    def _files(self, folder: str) -> list[str]:
        return list_files(folder, recursive=False, backend_args=self.backend_args)

    def _image_names(self) -> dict[str, str]:
        """Return the file names by image id, in the order of the data set."""
        folder = self.data_prefix['img_path']
        found: dict[str, str] = {}
        for name in self._files(folder):
            stem, suffix = osp.splitext(name)
            if suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if stem in found:
                raise ValueError(f'{folder}: {found[stem]} and {name} have the same id {stem!r}; keep one of them.')
            found[stem] = name
        if not found:
            raise FileNotFoundError(f'{folder} contains no images.')
        if not self.ann_file:
            return found

        chosen: dict[str, str] = {}
        for where, entry in read_image_list(self.ann_file, self.backend_args):
            stem, suffix = osp.splitext(entry)
            image_id = stem if suffix.lower() in IMAGE_SUFFIXES else entry
            if image_id not in found or entry not in (image_id, found[image_id]):
                raise FileNotFoundError(f'{where}: there is no image {entry!r} in {folder}.')
            if image_id in chosen:
                raise ValueError(f'{where}: image {entry!r} is listed twice.')
            chosen[image_id] = found[image_id]
        return chosen

    def _check_orphans(self, names: dict[str, str]) -> None:
        """Raise an error for labels without an image: the copy is incomplete and would silently train on less data."""
        folder = self.data_prefix['label_path']
        for label in self._files(folder):
            stem, suffix = osp.splitext(label)
            if suffix == '.txt' and stem not in names:
                raise FileNotFoundError(
                    f'{osp.join(folder, label)} has no image in {self.data_prefix["img_path"]}; '
                    'to use only some of the images, list them in ann_file.'
                )

    def _load_image(self, image_id: str, name: str) -> dict:
        path = osp.join(self.data_prefix['img_path'], name)
        height, width = image_size(path, self.backend_args)
        instances = []
        if 'label_path' in self.data_prefix:
            label_path = osp.join(self.data_prefix['label_path'], f'{image_id}.txt')
            boxes = parse_label(label_path, self.backend_args).tolist()
            for number, (x1, y1, x2, y2) in enumerate(boxes, start=2):
                if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
                    raise ValueError(
                        f'{label_path}, line {number}: a box must be inside the {width}×{height} image, got '
                        f'"{x1:g} {y1:g} {x2:g} {y2:g}".'
                    )
                instances.append(dict(bbox=[x1, y1, x2, y2], bbox_label=0, ignore_flag=0))
        return dict(img_path=path, img_id=image_id, height=height, width=width, instances=instances)
