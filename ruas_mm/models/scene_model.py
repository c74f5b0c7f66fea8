"""What a host's model gains from the scene module: the scene loss in training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ruas_mm.registry import MODELS


def scene_losses(criterion: torch.nn.Module, data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
    """Apply a scene loss to the scenes of a batch.

    Args:
        criterion (nn.Module): :class:`ruas_mm.SceneLoss`, called as ``criterion(t, y)``.
        data_samples (Sequence[BaseDataElement]): Samples with ``scene``; sizes may differ.

    Returns:
        dict[str, Tensor]: Scalar losses, each the mean over the images.

    Raises:
        ValueError: If the samples carry no scene.
    """
    groups = defaultdict(list)
    for sample in data_samples:
        if 'scene' not in sample:
            raise ValueError(
                'The scene loss needs the scene module, but the data preprocessor has none or it is not enabled.'
            )
        groups[sample.scene.shape].append(sample.scene)
    losses: dict[str, Tensor] = {}
    for scenes in groups.values():
        t = torch.stack([scene.illumination for scene in scenes])
        y = torch.stack([scene.observation for scene in scenes])
        share = len(scenes) / len(data_samples)
        for name, loss in criterion(t, y).items():
            losses[name] = losses.get(name, 0) + share * loss
    return losses


class SceneModelMixin:
    """Adds lambda times the scene loss to a host's model (paper Eq. 5).

    To be put before a host's detector or segmentor class whose ``loss(inputs, data_samples)`` returns a dict of losses.

    Args:
        scene_loss (dict, optional): Config of the scene loss; None trains with the task's loss alone.
        scene_loss_weight (float): The paper's lambda.
        **kwargs (Any): The host's own options.
    """

    def __init__(self, scene_loss: dict | None = None, scene_loss_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scene_loss = None if scene_loss is None else MODELS.build({'type': 'ruas_mm.SceneLoss', **scene_loss})
        self.scene_loss_weight = scene_loss_weight

    def loss(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> dict[str, Any]:
        """Compute the task's losses and, if configured, the scene's.

        Args:
            inputs (Tensor): Images of shape (N, 3, H, W) as the data preprocessor returns them.
            data_samples (Sequence[BaseDataElement]): Their labels and scenes.

        Returns:
            dict[str, Any]: The host's losses and ``loss_scene_fidelity``, ``loss_scene_smooth``.
        """
        losses = super().loss(inputs, data_samples)
        if self.scene_loss is not None:
            for name, loss in scene_losses(self.scene_loss, data_samples).items():
                losses[name] = self.scene_loss_weight * loss
        return losses
