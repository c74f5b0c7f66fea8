"""The ExDark data set: 12 object classes in 10 lighting conditions, read in the layout that its authors distribute."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmengine import fileio

from ruas_mm.datasets.detection.box_dataset import BoxDataset
from ruas_mm.datasets.image_list import list_files, read_image_list
from ruas_mm.datasets.image_size import read_header
from ruas_mm.datasets.text_files import parse_numbers, read_lines
from ruas_mm.utils.images import IMAGE_SUFFIXES

CLASSES = (
    *('Bicycle', 'Boat', 'Bottle', 'Bus', 'Car', 'Cat'),
    *('Chair', 'Cup', 'Dog', 'Motorbike', 'People', 'Table'),
)
# Meaning of the codes 1, 2, … in imageclasslist.txt.
LIGHTS = ('Low', 'Ambient', 'Object', 'Single', 'Weak', 'Strong', 'Screen', 'Window', 'Shadow', 'Twilight')
PLACES = ('Indoor', 'Outdoor')
SUBSETS = ('train', 'val', 'test')

_CODES = tuple(map(str, range(1, len(CLASSES) + 1)))  # long enough for all lists above: CLASSES is the longest
_HEADER = '% bbGt version=3'


class BBGtObject(NamedTuple):
    """One object of a bbGt file.

    Attributes:
        label (str): Class of the object.
        bbox (tuple): Box as xyxy, in pixels.
        ignore (bool): Whether the file marks the object as to be ignored.
    """

    label: str
    bbox: tuple[float, float, float, float]
    ignore: bool


class _Row(NamedTuple):
    """A line of imageclasslist.txt."""

    where: str
    light: str
    place: str
    subset: str


def _id(name: str) -> str:
    """Return the name of an image without folder and suffix, which is unique within ExDark."""
    stem, suffix = osp.splitext(osp.basename(name))
    return stem if suffix.lower() in IMAGE_SUFFIXES else stem + suffix


def parse_bbgt(path: str, backend_args: dict | None = None) -> list[BBGtObject]:
    """Read a label file in the bbGt version 3 format of Piotr Dollár's toolbox.

    The header is followed by one line per object: class, left, top, width, height, occlusion, visible box (four
    numbers), ignore flag and angle; the last seven are 0 in ExDark. A file with only the header has no objects.

    Args:
        path (str): The label file.
        backend_args (dict, optional): mmengine file backend; None for local files.

    Returns:
        list[BBGtObject]: The objects, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not have this format; the message names the file, the line and what was expected.
    """
    lines = read_lines(path, 'a bbGt label file', backend_args)
    head = lines[0].strip() if lines else ''
    if head != _HEADER:
        raise ValueError(f'{path}, line 1: the header must be "{_HEADER}", got {head!r}.')
    objects = []
    for number, line in enumerate(lines[1:], start=2):
        where = f'{path}, line {number}'
        label, *rest = line.split() or ['']
        try:
            left, top, width, height, _, _, _, _, _, ignore, _ = parse_numbers(rest)
        except ValueError:
            raise ValueError(f'{where}: an object must be a class and 11 decimal numbers, got {line!r}.') from None
        if width <= 0 or height <= 0:
            raise ValueError(f'{where}: the width and height of a box must be positive, got {line!r}.')
        objects.append(BBGtObject(label, (left, top, left + width, top + height), bool(ignore)))
    return objects


class ExDarkDataset(BoxDataset):
    """The Exclusively Dark (ExDark) data set.

    The official layout is read without conversion: ``ExDark/<Class>/<image>``, ``ExDark_Annno/<Class>/<image>.txt``
    and ``imageclasslist.txt`` under ``data_root``; 7363 images with 23 710 objects of 12 classes. An image, its label
    file and its line in the list are matched by their name without folder and suffix (``2015_00391``), because the
    release writes ``2015_00391.JPG`` in one place and ``2015_00391.jpg`` in another. Copies without class folders
    therefore work too. The class of an object is read from its line in the label file, not from the folder.

    Boxes refer to the pixels as stored in the file: the authors' tool does not apply the EXIF orientation. Load the
    images with ``dict(type='LoadImageFromFile', color_type='color_ignore_orientation')``. Boxes are clipped to their
    image (two of them start at -1 and -2).

    Source: Loh and Chan, "Getting to Know Low-light Images with the Exclusively Dark Dataset", CVIU 2019.

    Args:
        ann_file (str): A text file, relative to ``data_root``, with one image per line (``Bicycle/2015_00001``,
            ``2015_00001.png`` or ``2015_00001``); ``tools/dataset_tools/split.py`` writes such lists. If empty, all
            images are used.
        subset (str | Sequence[str], optional): ``'train'`` (3000 images), ``'val'`` (1800) or ``'test'`` (2563) of
            the authors' split, or several of them. With ``ann_file``, only images that are in both are used. Defaults
            to None, which means all three.
        class_list (str, optional): The authors' list of images, relative to ``data_root``; it must have a line for
            each image. If None, no list is read; ``subset``, ``light`` and ``place`` are then not available.
        data_prefix (dict, optional): ``img_path`` and ``label_path``, the folders of images and labels relative to
            ``data_root``. Defaults to ``dict(img_path='ExDark', label_path='ExDark_Annno')`` (the release spells
            ``Annno`` with three n).
        **kwargs: See ``mmdet.datasets.BaseDetDataset``. With ``metainfo=dict(classes=(…))``, only objects of these
            classes are kept. ``filter_cfg`` supports ``filter_empty_gt`` (bool) and ``min_size`` (of the shorter image
            side, in pixels). As everywhere in mmdet, nothing is filtered if ``test_mode=True``.

    Raises:
        FileNotFoundError: If an image, a label file or a list is missing.
        ValueError: If a label file, a list or an image is damaged, an argument or a class is unknown, or a box is
            entirely outside its image. All errors are raised when the data set is initialised, with a message that
            names the file and the line.
    """

    METAINFO = dict(
        classes=CLASSES,
        palette=[
            *((220, 20, 60), (0, 130, 200), (60, 180, 75), (255, 165, 0), (0, 0, 230), (145, 30, 180)),
            *((170, 110, 40), (70, 240, 240), (240, 50, 230), (128, 128, 0), (255, 225, 25), (0, 128, 128)),
        ],
    )

    def __init__(
        self,
        ann_file: str = '',
        *,
        subset: str | Sequence[str] | None = None,
        class_list: str | None = 'imageclasslist.txt',
        data_prefix: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.subset = SUBSETS if subset is None else (subset,) if isinstance(subset, str) else tuple(subset)
        if not self.subset or not set(self.subset) <= set(SUBSETS):
            raise ValueError(f"subset must be 'train', 'val' or 'test', or several of them, got {subset!r}.")
        if subset is not None and class_list is None:
            raise ValueError(f'subset={subset!r} needs class_list, which assigns the images to the subsets.')
        self.class_list = class_list
        data_prefix = {'img_path': 'ExDark', 'label_path': 'ExDark_Annno', **(data_prefix or {})}
        super().__init__(ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the lists, the labels and the sizes of the images (from their headers, without decoding them).

        Returns:
            list[dict]: One dict per image: ``img_path``, ``img_id``, ``height``, ``width`` and ``instances``, a list of
            dicts with ``bbox`` (xyxy, pixels), ``bbox_label`` and ``ignore_flag``; with a ``class_list`` also
            ``light`` (one of ``LIGHTS``) and ``place`` (one of ``PLACES``).
        """
        classes = self.metainfo['classes']
        if not set(classes) <= set(CLASSES):
            raise ValueError(f'The classes in metainfo must be among {", ".join(CLASSES)}, got {", ".join(classes)}.')
        images = self._files(self.data_prefix['img_path'], 'image', IMAGE_SUFFIXES)
        labels = self._files(self.data_prefix['label_path'], 'label file', ('.txt',))
        rows = self._read_class_list()
        infos = []
        for image_id, where in self._selected(images, labels, rows).items():
            for kind, found, prefix in (('image', images, 'img_path'), ('label file', labels, 'label_path')):
                if image_id not in found:
                    raise FileNotFoundError(
                        f'{where}: {image_id} has no {kind} in {self.data_prefix[prefix]}; to use only some of the '
                        'images, list them in ann_file.'
                    )
            tags = {}
            if self.class_list is not None:
                if image_id not in rows:
                    raise ValueError(
                        f'{where}: {image_id} is not in {self.class_list}; set class_list=None to read no such list.'
                    )
                row = rows[image_id]
                if row.subset not in self.subset:
                    continue
                tags = dict(light=row.light, place=row.place)
            infos.append({**self._load_image(image_id, images[image_id], labels[image_id]), **tags})
        if not infos:
            raise ValueError(
                f'{self.ann_file or self.class_list} contains no image of subset {", ".join(self.subset)}.'
            )
        return infos

    def _files(self, folder: str, kind: str, suffixes: tuple[str, ...]) -> dict[str, str]:
        """Return the paths of all files of one kind below a folder, by the id of their image."""
        found: dict[str, str] = {}
        for name in list_files(folder, backend_args=self.backend_args):
            stem, suffix = osp.splitext(name)
            if suffix.lower() not in suffixes:
                continue
            image_id = _id(stem if kind == 'label file' else name)
            path = osp.join(folder, name)
            if image_id in found:
                raise ValueError(f'{path} and {found[image_id]} are both the {kind} of {image_id}; keep one of them.')
            found[image_id] = path
        if not found:
            raise FileNotFoundError(f'{folder} contains no {kind}s.')
        return found

    def _read_class_list(self) -> dict[str, _Row]:
        if self.class_list is None:
            return {}
        path = fileio.join_path(self.data_root or '', self.class_list, backend_args=self.backend_args)
        expected = 'the header "Name | Class | Light | In/Out | Train/Val/Test" and one such line per image'
        rows: dict[str, _Row] = {}
        for number, line in enumerate(read_lines(path, expected, self.backend_args), start=1):
            if number == 1 and line.startswith('Name'):
                continue
            where = f'{path}, line {number}'
            tables = (CLASSES, LIGHTS, PLACES, SUBSETS)
            try:
                name, *codes = line.split()
                numbers = [_CODES[: len(table)].index(code) for code, table in zip(codes, tables, strict=True)]
            except ValueError:
                raise ValueError(
                    f'{where}: a line must be an image and four codes of at most 12, 10, 2 and 3, got {line!r}.'
                ) from None
            if _id(name) in rows:
                raise ValueError(f'{where}: image {_id(name)} is listed twice.')
            rows[_id(name)] = _Row(where, LIGHTS[numbers[1]], PLACES[numbers[2]], SUBSETS[numbers[3]])
        if not rows:
            raise ValueError(f'{path} contains no images; expected {expected}.')
        return rows

    def _selected(self, images: dict, labels: dict, rows: dict[str, _Row]) -> dict[str, str]:
        """Return where each selected image is listed, for messages, by its id and in the order of the data set."""
        if not self.ann_file:
            if self.class_list is not None:  # images that are not in the list do not belong to the data set
                return {image_id: row.where for image_id, row in rows.items() if row.subset in self.subset}
            return {**labels, **images}  # so that a label without an image, or the reverse, raises an error
        selected: dict[str, str] = {}
        for where, entry in read_image_list(self.ann_file, self.backend_args):
            image_id = _id(entry)
            if image_id in selected:
                raise ValueError(f'{where}: image {image_id} is listed twice.')
            selected[image_id] = where
        return selected

    def _load_image(self, image_id: str, path: str, label_path: str) -> dict:
        header = read_header(path, backend_args=self.backend_args)
        height, width = header.height, header.width
        label_of = {name: index for index, name in enumerate(self.metainfo['classes'])}
        instances = []
        for number, (name, (x1, y1, x2, y2), ignore) in enumerate(parse_bbgt(label_path, self.backend_args), start=2):
            where = f'{label_path}, line {number}'
            if name not in CLASSES:
                raise ValueError(f'{where}: the class must be among {", ".join(CLASSES)}, got {name!r}.')
            if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
                raise ValueError(
                    f'{where}: a box must overlap the {width}×{height} image, got x from {x1:g} to {x2:g} and '
                    f'y from {y1:g} to {y2:g}.'
                )
            if name in label_of:
                box = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
                instances.append(dict(bbox=box, bbox_label=label_of[name], ignore_flag=int(ignore)))
        return dict(img_path=path, img_id=image_id, height=height, width=width, instances=instances)
