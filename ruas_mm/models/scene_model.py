"""What a host's model gains from the scene module: the scene loss in training, and the phases of a search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ruas_mm.registry import MODELS
from ruas_mm.search import Phase


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
    """Adds lambda times the scene loss to a host's model (paper Eq. 5), and the phases of a search to its training.

    To be put before a host's detector or segmentor class whose ``loss(inputs, data_samples)`` returns a dict of losses.
    ``search_phase`` says which losses that are; see :class:`ruas_mm.search.Phase`. It stays ``JOINT`` outside a search.

    Args:
        scene_loss (dict, optional): Config of the scene loss; None trains with the task's loss alone.
        scene_loss_weight (float): The paper's lambda.
        **kwargs (Any): The host's own options.
    """

    def __init__(self, scene_loss: dict | None = None, scene_loss_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scene_loss = None if scene_loss is None else MODELS.build({'type': 'ruas_mm.SceneLoss', **scene_loss})
        self.scene_loss_weight = scene_loss_weight
        self.search_phase = Phase.JOINT

    @property
    def scene_module(self) -> torch.nn.Module | None:
        """The scene module, which lives in the data preprocessor; None if there is none."""
        preprocessor = self.data_preprocessor
        return preprocessor.scene_module if getattr(preprocessor, 'enabled', False) else None

    @property
    def search_phase(self) -> Phase:
        """Which losses training has at the moment."""
        return self._search_phase

    @search_phase.setter
    def search_phase(self, phase: Phase) -> None:
        self._search_phase = Phase(phase)
        self.data_preprocessor.detach_scene = self._search_phase is Phase.TASK

    def loss(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> dict[str, Any]:
        """Compute the losses of the current phase: ordinarily the task's and, if configured, the scene's.

        Args:
            inputs (Tensor): Images of shape (N, 3, H, W) as the data preprocessor returns them.
            data_samples (Sequence[BaseDataElement]): Their labels and scenes.

        Returns:
            dict[str, Any]: The host's losses and ``loss_scene_fidelity``, ``loss_scene_smooth``.
        """
        if self.search_phase is Phase.SCENE:
            return scene_losses(self.scene_loss, data_samples)
        losses = super().loss(inputs, data_samples)
        if self.scene_loss is not None and self.search_phase is Phase.JOINT:
            for name, loss in scene_losses(self.scene_loss, data_samples).items():
                losses[name] = self.scene_loss_weight * loss
        return losses
