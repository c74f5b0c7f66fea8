"""Losses of the method (torch only)."""

from ruas_mm.losses.denoising_loss import DenoisingLoss
from ruas_mm.losses.noise_estimation_loss import NoiseEstimationLoss
from ruas_mm.losses.scene_loss import NeighbourhoodSmoothLoss, RTVLoss, SceneLoss

__all__ = ['DenoisingLoss', 'NeighbourhoodSmoothLoss', 'NoiseEstimationLoss', 'RTVLoss', 'SceneLoss']
