"""mmseg's encoder-decoder with the scene loss."""

from mmseg.models import EncoderDecoder

from ruas_mm.models.scene_model import SceneModelMixin


class RUASEncoderDecoder(SceneModelMixin, EncoderDecoder):
    """Any encoder-decoder of mmseg, preceded by a scene module.

    Args:
        scene_loss (dict, optional): Config of :class:`ruas_mm.SceneLoss`; None trains with the task loss alone.
        scene_loss_weight (float): The paper's lambda.
        **kwargs (Any): Options of ``mmseg.EncoderDecoder``: backbone, decode_head, auxiliary_head, data_preprocessor, …
    """
