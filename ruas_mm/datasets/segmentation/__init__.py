"""Low-light segmentation data sets and a transform that loads and validates label maps, for mmseg."""

from ruas_mm.datasets.segmentation.acdc_night import ACDCNightDataset
from ruas_mm.datasets.segmentation.camvid import CamVidDataset
from ruas_mm.datasets.segmentation.load_seg_labels import LoadSegLabels

__all__ = ['ACDCNightDataset', 'CamVidDataset', 'LoadSegLabels']
