"""The scene module inside a host's data preprocessor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from torch import Tensor

from ruas_mm.models.stack_by_size import stack_by_size
from ruas_mm.registry import MODELS


class Scene(PixelData):
    """Maps of one image, each of shape (3, H, W): ``observation`` y, ``feature`` u^K and ``illumination`` t^K.

    Copies of a data sample share them: two-stage detectors deep-copy their samples, and tensors inside a graph cannot
    be copied that way.
    """

    def __deepcopy__(self, memo: dict) -> Scene:
        return self.clone()


class ScenePreprocessorMixin:
    """Runs the scene module between a host's pipeline and its normalisation.

    To be put before a host's data preprocessor class (mmdet, mmseg) that takes images of 0 … 255 and normalises them.
    Each image is brought to RGB in [0, 1], goes through the scene module at its own size (images of equal size
    together), and u^K is handed to the host in the channel order and range it expects: normalisation and padding stay
    the host's. The scene travels with each data sample as ``data_sample.scene``, see :class:`Scene`. While
    ``detach_scene`` is set, no gradient reaches the scene module.

    Args:
        scene_module (dict, optional): Config of the scene module; None leaves the host as it is.
        enabled (bool): Whether the scene module runs; a switch for comparisons, weights stay loaded.
        brightness_gate (float, optional): Images whose mean luminance (BT.601 luma of RGB in [0, 1]) exceeds it pass
            unchanged (u = y, t = 1). None lets the scene module see every image.
        **kwargs (Any): The host's own options.
    """

    def __init__(
        self,
        scene_module: dict | None = None,
        enabled: bool = True,
        brightness_gate: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scene_module = None
        if scene_module is not None:
            self.scene_module = MODELS.build({'type': 'ruas_mm.SceneModule', **scene_module})
        self.enabled = enabled
        self.brightness_gate = brightness_gate
        self.detach_scene = False
        # A host that turns RGB into BGR was given RGB; every other pipeline of the toolboxes loads BGR.
        self.input_is_rgb = bool(kwargs.get('rgb_to_bgr', False))

    def forward(self, data: dict, training: bool = False) -> dict:
        """Enhance the images, then do what the host does.

        Args:
            data (dict): Batch from the host's data loader; ``inputs`` are images of 0 … 255.
            training (bool): Whether the batch is for training.

        Returns:
            dict: Batch as the host's own data preprocessor returns it; its samples hold ``scene``.
        """
        if self.scene_module is not None and self.enabled:
            data = self.cast_data(data)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_scene):
                scenes = self._scenes(data['inputs'], training)
            inputs = [self._reorder(scene.feature) * 255 for scene in scenes]
            data = {**data, 'inputs': inputs if isinstance(data['inputs'], list) else torch.stack(inputs)}
            for sample, scene in zip(data.get('data_samples') or (), scenes):  # noqa: B905 - samples may be None
                sample.scene = scene
        return super().forward(data, training)

    def _reorder(self, image: Tensor) -> Tensor:
        """Turn the pipeline's channel order into RGB, or back."""
        return image if self.input_is_rgb else image.flip(0)

    def _scenes(self, images: Sequence[Tensor], training: bool) -> list[Scene]:
        scenes: dict[int, Scene] = {}
        for indices, batch in stack_by_size([self._reorder(image) for image in images]):
            y = batch.float() / 255
            for index, *maps in zip(indices, y, *self._see(y, training), strict=True):
                observation, feature, illumination = maps
                scenes[index] = Scene(observation=observation, feature=feature, illumination=illumination)
        return [scenes[index] for index in range(len(images))]

    def _see(self, y: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """Return u^K and t^K of a batch (N, 3, H, W) of equal sizes."""
        if self.brightness_gate is None:
            scene = self.scene_module(y)
            return scene.features[-1], scene.illuminations[-1]
        luma = (y * y.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1).mean(dim=(-2, -1))
        dark = luma <= self.brightness_gate
        feature, illumination = y.clone(), torch.ones_like(y)
        if training or dark.any():
            # In training even for no image: an empty batch keeps the weights in the graph, where DDP waits for them.
            scene = self.scene_module(y[dark])
            feature[dark], illumination[dark] = scene.features[-1], scene.illuminations[-1]
        return feature, illumination
