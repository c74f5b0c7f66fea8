"""Losses of the method (torch only)."""

from ruas_mm.losses.scene_loss import NeighbourhoodSmoothLoss, RTVLoss, SceneLoss

__all__ = ['NeighbourhoodSmoothLoss', 'RTVLoss', 'SceneLoss']
