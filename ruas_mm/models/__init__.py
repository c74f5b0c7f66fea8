"""Models for the hosts; what needs one lives in the folder named after its task."""

from ruas_mm.models.data_preprocessor import ScenePreprocessorMixin
from ruas_mm.models.scene_model import SceneModelMixin, scene_losses
from ruas_mm.models.scene_pretrainer import ScenePretrainer

__all__ = ['SceneModelMixin', 'ScenePreprocessorMixin', 'ScenePretrainer', 'scene_losses']
