"""mmseg's data preprocessor with a scene module inside."""

from mmseg.models import SegDataPreProcessor

from ruas_mm.models.data_preprocessor import ScenePreprocessorMixin


class RUASSegDataPreprocessor(ScenePreprocessorMixin, SegDataPreProcessor):
    """Data preprocessor for any mmseg segmentor that runs the scene module before mmseg's own preprocessing.

    It processes whole images; sliding windows are cropped from the enhanced images.

    Args:
        scene_module (dict, optional): Config of :class:`ruas_mm.SceneModule`.
        enabled (bool): Whether the scene module runs.
        brightness_gate (float, optional): Mean luminance in [0, 1] above which an image is left unchanged.
        **kwargs (Any): Options of ``mmseg.SegDataPreProcessor``: mean, std, bgr_to_rgb, size, test_cfg, …
    """
