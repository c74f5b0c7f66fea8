"""The night subset of ACDC, read in the layout that its authors distribute."""

from __future__ import annotations

from mmseg.datasets import CityscapesDataset

from ruas_mm.datasets.segmentation.paired_seg_dataset import PairedSegDataset


class ACDCNightDataset(PairedSegDataset):
    """The night subset of ACDC: 400 training and 106 validation images of 1920×1080, with Cityscapes' 19 classes.

    The official layout is read without conversion:
    ``rgb_anon/night/train/GOPR0351/GOPR0351_frame_000159_rgb_anon.png`` and
    ``gt/night/train/GOPR0351/GOPR0351_frame_000159_gt_labelTrainIds.png`` under ``data_root``; the value 255 is
    ignored. The 500 images of ``rgb_anon/night/test`` have no public labels.

    Source: Sakaridis et al., "ACDC: The Adverse Conditions Dataset with Correspondences for Semantic Driving Scene
    Understanding", ICCV 2021.

    Args:
        ann_file (str): A text file with one image per line (``GOPR0351/GOPR0351_frame_000159``, with or without
            ``_rgb_anon`` and ``.png``), relative to ``data_prefix['img_path']``; ``tools/dataset_tools/split.py``
            writes such lists. If empty, all images are used, in numerical order.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``, the folders of images and label maps relative
            to ``data_root``. Defaults to ``dict(img_path='rgb_anon/night/train', seg_map_path='gt/night/train')``; a
            list with images of both train and val needs ``dict(img_path='rgb_anon/night', seg_map_path='gt/night')``.
            Use ``seg_map_path=None`` with ``test_mode=True`` for images without labels.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder, an image, its label map or the list is missing.
        ValueError: If the list is damaged or names an image twice. All errors are raised when the data set is
            initialised, with a message that names the file and the line. The contents of the label maps are checked
            later, by ``LoadSegLabels``.
    """

    METAINFO = CityscapesDataset.METAINFO
    DATA_PREFIX = dict(img_path='rgb_anon/night/train', seg_map_path='gt/night/train')
    IMG_SUFFIX = ('_rgb_anon.png',)
    SEG_MAP_SUFFIX = '_gt_labelTrainIds.png'
