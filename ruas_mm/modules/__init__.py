"""The method's own modules (torch only)."""

from ruas_mm.modules.distillation_cell import DistillationCell, cell_slots
from ruas_mm.modules.folded import fold
from ruas_mm.modules.noise_estimator import NoiseEstimator
from ruas_mm.modules.noise_removal import NoiseRemoval
from ruas_mm.modules.scene_module import SceneModule, SceneOutput

__all__ = [
    'DistillationCell',
    'NoiseEstimator',
    'NoiseRemoval',
    'SceneModule',
    'SceneOutput',
    'cell_slots',
    'fold',
]
