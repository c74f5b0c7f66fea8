"""Low-light detection data sets, for mmdet."""

from ruas_mm.datasets.detection.dark_face import DarkFaceDataset, parse_label
from ruas_mm.datasets.detection.exdark import ExDarkDataset, parse_bbgt

__all__ = ['DarkFaceDataset', 'ExDarkDataset', 'parse_bbgt', 'parse_label']
