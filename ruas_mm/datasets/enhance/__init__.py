"""Data sets and transforms for low-light enhancement; they need mmcv (mmcv-lite is enough) but no toolbox."""

from ruas_mm.datasets.enhance.load_ground_truth import LoadGroundTruth
from ruas_mm.datasets.enhance.low_light_dataset import LowLightDataset
from ruas_mm.datasets.enhance.pack_enhance_inputs import PackEnhanceInputs
from ruas_mm.datasets.enhance.random_crop import RandomCrop

__all__ = ['LoadGroundTruth', 'LowLightDataset', 'PackEnhanceInputs', 'RandomCrop']
