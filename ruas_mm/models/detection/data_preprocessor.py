"""mmdet's data preprocessor with a scene module inside."""

from mmdet.models import DetDataPreprocessor

from ruas_mm.models.data_preprocessor import ScenePreprocessorMixin


class RUASDetDataPreprocessor(ScenePreprocessorMixin, DetDataPreprocessor):
    """Data preprocessor for any mmdet detector that runs the scene module before mmdet's own preprocessing.

    Args:
        scene_module (dict, optional): Config of :class:`ruas_mm.SceneModule`.
        enabled (bool): Whether the scene module runs.
        brightness_gate (float, optional): Mean luminance in [0, 1] above which an image is left unchanged.
        **kwargs (Any): Options of ``mmdet.DetDataPreprocessor``: mean, std, bgr_to_rgb, pad_size_divisor, …
    """
