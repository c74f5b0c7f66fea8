"""Low-light detection data sets, for mmdet."""

from ruas_mm.datasets.detection.dark_face import DarkFaceDataset, parse_label

__all__ = ['DarkFaceDataset', 'parse_label']
