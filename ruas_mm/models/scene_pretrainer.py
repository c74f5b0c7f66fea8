"""The first step of hierarchical training: the scene module alone, on images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from ruas_mm.models.scene_model import scene_losses
from ruas_mm.registry import MODELS


class ScenePretrainer(BaseModel):
    """Trains the scene module of a data preprocessor with the scene loss (paper §3.2, "hierarchical").

    It uses the data preprocessor of the model that comes after it, so that its checkpoints hold the scene module under
    the same keys: ``load_from`` of the second step takes them as they are.

    Args:
        data_preprocessor (dict): Config of a data preprocessor with a scene module, as in the model to be trained next.
        scene_loss (dict): Config of the scene loss.
        init_cfg (dict, optional): Initialisation, see ``mmengine.model.BaseModule``.
    """

    def __init__(self, data_preprocessor: dict, scene_loss: dict, init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.scene_loss = MODELS.build({'type': 'ruas_mm.SceneLoss', **scene_loss})

    def forward(
        self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> Any:
        """Run one of mmengine's modes.

        Args:
            inputs (Tensor): Images of shape (N, 3, H, W) as the data preprocessor returns them, already enhanced.
            data_samples (Sequence[BaseDataElement], optional): Their scenes; labels are not used.
            mode (str): ``loss``, ``predict`` or ``tensor``.

        Returns:
            Any: A dict of losses, the samples with their scenes, or the enhanced images.

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode == 'loss':
            return scene_losses(self.scene_loss, data_samples)
        if mode == 'predict':
            return list(data_samples)
        if mode == 'tensor':
            return inputs
        raise ValueError(f"ScenePretrainer has no mode {mode!r}; choose 'loss', 'predict' or 'tensor'.")
