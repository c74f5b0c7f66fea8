"""The CamVid data set in the version with 12 label values that the authors of SegNet published."""

from __future__ import annotations

from collections.abc import Sequence

from ruas_mm.datasets.segmentation.paired_seg_dataset import PairedSegDataset
from ruas_mm.utils.images import IMAGE_SUFFIXES

_VOID = 11


class CamVidDataset(PairedSegDataset):
    """Video frames from a car in Cambridge with 11 classes; sequence 0001TP was filmed at dusk, all others by day.

    The layout is that of SegNet: images ``{train,val,test}/NAME.png`` (or ``.jpg``) and label maps
    ``{train,val,test}annot/NAME.png`` under ``data_root``, usually 367, 101 and 233 of 480×360. The value 11 (void) is
    ignored: the ``label_map`` converts it to 255 when mmseg loads a label map.

    Source: Brostow et al., "Semantic Object Classes in Video", Pattern Recognition Letters 2009; Badrinarayanan et al.,
    "SegNet", IEEE TPAMI 2017, for the 11 classes.

    Args:
        ann_file (str): A text file with one image per line (``0001TP_006690`` or ``0001TP_006690.png``), relative to
            ``data_prefix['img_path']``; ``tools/dataset_tools/split.py`` and ``camvid_dusk.py`` write such lists.
            If empty, all images are used, in numerical order.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``, the folders of images and label maps relative
            to ``data_root``. Defaults to ``dict(img_path='train', seg_map_path='trainannot')``. Use
            ``seg_map_path=None`` with ``test_mode=True`` for images without labels.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder, an image, its label map or the list is missing.
        ValueError: If two images have the same id, or the list is damaged or names an image twice. All errors are
            raised when the data set is initialised, with a message that names the file and the line. The contents of
            the label maps are checked later, by ``LoadSegLabels``.
    """

    METAINFO = dict(
        classes=(
            *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
            *('sign', 'fence', 'car', 'pedestrian', 'bicyclist'),
        ),
        palette=[
            *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [0, 0, 192], [128, 128, 0]),
            *([192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]),
        ],
    )
    DATA_PREFIX = dict(img_path='train', seg_map_path='trainannot')
    IMG_SUFFIX = IMAGE_SUFFIXES
    SEG_MAP_SUFFIX = '.png'

    @classmethod
    def get_label_map(cls, new_classes: Sequence | None = None) -> dict[int, int]:
        """Return the mapping from the ids in the files to the training ids.

        Args:
            new_classes (Sequence, optional): The classes to keep; None for all.

        Returns:
            dict[int, int]: Training ids of the ids that change; 255 is ignored.
        """
        return {**(super().get_label_map(new_classes) or {}), _VOID: 255}
