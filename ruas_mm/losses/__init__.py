"""Losses of the method (torch only)."""

from ruas_mm.losses.denoising_loss import DenoisingLoss, SyntheticDenoisingLoss
from ruas_mm.losses.noise_estimation_loss import NoiseEstimationLoss
from ruas_mm.losses.scene_loss import NeighbourhoodSmoothLoss, RTVLoss, SceneLoss
from ruas_mm.losses.synthetic_noise import SyntheticNoise

__all__ = [
    'DenoisingLoss',
    'NeighbourhoodSmoothLoss',
    'NoiseEstimationLoss',
    'RTVLoss',
    'SceneLoss',
    'SyntheticDenoisingLoss',
    'SyntheticNoise',
]
