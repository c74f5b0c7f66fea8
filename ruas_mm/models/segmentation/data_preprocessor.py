"""mmseg's data preprocessor with a scene module inside."""

from mmseg.models import SegDataPreProcessor

from ruas_mm.models.data_preprocessor import ScenePreprocessorMixin


class RUASSegDataPreprocessor(ScenePreprocessorMixin, SegDataPreProcessor):
    """Data preprocessor for any mmseg segmentor: the scene module first, then mmseg's own.

    It sees whole images: sliding windows are cut from what it has enhanced.

    Args:
        scene_module (dict, optional): Config of :class:`ruas_mm.SceneModule`.
        enabled (bool): Whether the scene module runs.
        brightness_gate (float, optional): Mean luminance in [0, 1] above which an image passes unchanged.
        **kwargs (Any): Options of ``mmseg.SegDataPreProcessor``: mean, std, bgr_to_rgb, size, test_cfg, …
    """
