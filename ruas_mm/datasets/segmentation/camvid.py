"""CamVid in the 12-value form that SegNet's authors published."""

from __future__ import annotations

from collections.abc import Sequence

from ruas_mm.datasets.segmentation.paired_seg_dataset import PairedSegDataset
from ruas_mm.utils.images import IMAGE_SUFFIXES

_VOID = 11


class CamVidDataset(PairedSegDataset):
    """Frames from a car in Cambridge, with 11 classes; the sequence 0001TP was filmed at dusk, all others by day.

    The layout is SegNet's: images ``{train,val,test}/NAME.png`` (or ``.jpg``) and label maps
    ``{train,val,test}annot/NAME.png`` under ``data_root``, usually 367, 101 and 233 of 480×360. The value 11, void, is
    ignored: its entry in the ``label_map`` makes it 255 when mmseg loads the map.

    Source: Brostow et al., "Semantic Object Classes in Video", Pattern Recognition Letters 2009; Badrinarayanan et al.,
    "SegNet", IEEE TPAMI 2017, for the 11 classes.

    Args:
        ann_file (str): A text file with one image a line (``0001TP_006690`` or ``0001TP_006690.png``), below
            ``data_prefix['img_path']``; ``tools/dataset_tools/split.py`` and ``camvid_dusk.py`` write such lists.
            Empty: all images, in numerical order.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``, the folders of images and label maps relative
            to ``data_root``. Defaults to ``dict(img_path='train', seg_map_path='trainannot')``.
            ``seg_map_path=None`` with ``test_mode=True``: images without labels.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder, an image, its label map or the list is missing.
        ValueError: If two images share a name, or the list is damaged or names an image twice. All of them when the
            data set is initialised, each in one sentence naming the file and the line; what is wrong inside a label
            map, ``LoadSegLabels`` finds.
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
        """Map the ids of the files to those of training.

        Args:
            new_classes (Sequence, optional): The classes to keep; None for all.

        Returns:
            dict[int, int]: What becomes of an id, where that is not itself; 255 is ignored.
        """
        return {**(super().get_label_map(new_classes) or {}), _VOID: 255}
