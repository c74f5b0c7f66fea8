"""The night part of ACDC, read as its authors distribute it."""

from __future__ import annotations

from mmseg.datasets import CityscapesDataset

from ruas_mm.datasets.segmentation.paired_seg_dataset import PairedSegDataset


class ACDCNightDataset(PairedSegDataset):
    """Streets at night with the 19 classes of Cityscapes: 400 images to train, 106 to validate, of 1920×1080.

    The official layout is read as it is: ``rgb_anon/night/train/GOPR0351/GOPR0351_frame_000159_rgb_anon.png`` and
    ``gt/night/train/GOPR0351/GOPR0351_frame_000159_gt_labelTrainIds.png`` under ``data_root``; 255 is ignored. The
    500 images of ``rgb_anon/night/test`` come without labels.

    Source: Sakaridis et al., "ACDC: The Adverse Conditions Dataset with Correspondences for Semantic Driving Scene
    Understanding", ICCV 2021.

    Args:
        ann_file (str): A text file with one image a line (``GOPR0351/GOPR0351_frame_000159``, with or without
            ``_rgb_anon`` and ``.png``), below ``data_prefix['img_path']``; ``tools/dataset_tools/split.py`` writes such
            lists. Empty: all images, in numerical order.
        data_prefix (dict, optional): ``img_path`` and ``seg_map_path``, the folders of images and label maps relative
            to ``data_root``. Defaults to ``dict(img_path='rgb_anon/night/train', seg_map_path='gt/night/train')``; a
            list that draws from train and val needs ``dict(img_path='rgb_anon/night', seg_map_path='gt/night')``.
            ``seg_map_path=None`` with ``test_mode=True``: images without labels.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder, an image, its label map or the list is missing.
        ValueError: If the list is damaged or names an image twice. All of them when the data set is initialised, each
            in one sentence naming the file and the line; what is wrong inside a label map, ``LoadSegLabels`` finds.
    """

    METAINFO = CityscapesDataset.METAINFO
    DATA_PREFIX = dict(img_path='rgb_anon/night/train', seg_map_path='gt/night/train')
    IMG_SUFFIX = ('_rgb_anon.png',)
    SEG_MAP_SUFFIX = '_gt_labelTrainIds.png'
