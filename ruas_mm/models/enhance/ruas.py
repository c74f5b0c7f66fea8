"""RUAS for low-light enhancement, as a plain mmengine model."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from ruas_mm.models.enhance.exposure import Level, brightness, check_exposure, find_level, small_copy
from ruas_mm.models.stack_by_size import stack_by_size
from ruas_mm.registry import MODELS
from ruas_mm.search import GenotypeLike, Phase
from ruas_mm.utils.text import show

VARIANTS = ('S', 'full', 'A')


class Enhancement(NamedTuple):
    """What the model makes of a batch of images.

    Attributes:
        enhanced (Tensor): The result of shape (N, 3, H, W), RGB in [0, 1].
        feature (Tensor): The scene feature u^K, of the same shape and range: the result before noise removal.
        illumination (Tensor): The illumination t^K, of the same shape, in [t_min, 1]; with an exposure or strength what
            the image was divided by in effect, in (0, 1].
        noise_score (Tensor, optional): How noisy each u^K is, shape (N,); None without a noise estimator.
    """

    enhanced: Tensor
    feature: Tensor
    illumination: Tensor
    noise_score: Tensor | None


class RUAS(BaseModel):
    """Brightens dark images; its training needs no ground truth (paper §4.1 and Eq. 5, METHOD §5 and §6).

    Variants: ``S`` is the scene module alone; ``full`` removes noise from every image; ``A`` removes it where the noise
    score exceeds ``epsilon``, image by image. Images of different sizes do not influence each other: those of equal
    size run together.

    ``search_phase`` says which losses a training has, see :class:`ruas_mm.search.Phase`, and stays ``JOINT`` outside a
    search. The scene has its own loss; the task is the noise removal with, for ``A``, the noise estimator. That one
    always learns by itself, with no gradient to anything else. In training the noise removal sees every image,
    whatever its score. ``S`` has no task: it is searched with ``CooperativeSearchHook(strategy='global')``.

    Args:
        variant (str): ``S``, ``full`` or ``A``.
        genotype (Genotype | Mapping | str | Path, optional): Architecture of scene module and noise removal; None makes
            both searchable.
        scene_module (dict, optional): Config of :class:`ruas_mm.SceneModule`; a ``genotype`` of its own goes first.
        noise_removal (dict, optional): Config of :class:`ruas_mm.NoiseRemoval`; likewise.
        noise_estimator (dict, optional): Config of :class:`ruas_mm.NoiseEstimator`.
        scene_loss (dict, optional): Config of :class:`ruas_mm.SceneLoss`.
        scene_loss_weight (float): The paper's lambda, at least 0: weight of the scene loss beside the task's. ``S`` has
            no task, so there it does not apply.
        task_loss (dict, optional): Config of :class:`ruas_mm.DenoisingLoss`, or of another ``type``.
        noise_loss (dict, optional): Config of :class:`ruas_mm.NoiseEstimationLoss`.
        end_to_end (bool): Whether the task's loss trains the scene module too, as in Eq. 5. False trains each by its
            own loss.
        epsilon (float): Noise score above which ``A`` removes the noise (authors' release: 0.035).
        border (int): Pixels by which an image is extended on every side while it is enhanced, its outermost ones
            repeated; training crops are not. Further out the convolutions see zeros, which 0 (authors' release) shows
            as a line along the border. At 20, as far as the default architecture sees, no zero reaches the image.
        exposure (float | str, optional): How bright results become: ``auto``, or their mean luminance in (0, 1), by a
            gain on each image or less than the whole effect, see :func:`find_level` of ``exposure.py``. None takes
            images as they are. It is for inference; training does not know it.
        strength (float): Share in [0, 1] of the model's result in the result; the rest is the image. For inference.
        brightness_gate (float, optional): Images whose mean luminance (BT.601 luma of RGB in [0, 1]) exceeds it pass
            unchanged at inference. None enhances every image.
        data_preprocessor (dict, optional): Config of the data preprocessor; by default
            :class:`ruas_mm.RUASDataPreprocessor` as it is.
        init_cfg (dict, optional): Initialisation, see ``mmengine.model.BaseModule``.

    Raises:
        ValueError: If an option has no such value, or the genotype does not fit.
    """

    def __init__(
        self,
        variant: str = 'A',
        genotype: GenotypeLike = 'ruas_enhance_journal',
        scene_module: dict | None = None,
        noise_removal: dict | None = None,
        noise_estimator: dict | None = None,
        scene_loss: dict | None = None,
        scene_loss_weight: float = 1.0,
        task_loss: dict | None = None,
        noise_loss: dict | None = None,
        end_to_end: bool = True,
        epsilon: float = 0.035,
        border: int = 0,
        exposure: float | str | None = None,
        strength: float = 1.0,
        brightness_gate: float | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f'RUAS has no variant {show(variant)}; choose from {", ".join(VARIANTS)}.')
        if not isinstance(scene_loss_weight, Real) or not scene_loss_weight >= 0:
            raise ValueError(
                f'scene_loss_weight of RUAS must be a number of at least 0, got {show(scene_loss_weight)}.'
            )
        if not isinstance(epsilon, Real) or isnan(epsilon):
            raise ValueError(f'epsilon of RUAS must be a number, got {show(epsilon)}.')
        if not isinstance(border, Integral) or border < 0:
            raise ValueError(f'border of RUAS must be an integer of at least 0, got {show(border)}.')
        check_exposure(exposure, 'RUAS')
        if not isinstance(strength, Real) or not 0 <= strength <= 1:
            raise ValueError(f'strength of RUAS must be a number in [0, 1], got {show(strength)}.')
        if brightness_gate is not None and (not isinstance(brightness_gate, Real) or isnan(brightness_gate)):
            raise ValueError(f'brightness_gate of RUAS must be None or a number, got {show(brightness_gate)}.')
        super().__init__(data_preprocessor or {'type': 'ruas_mm.RUASDataPreprocessor'}, init_cfg)
        self.variant = variant
        self.scene_loss_weight = scene_loss_weight
        self.end_to_end = end_to_end
        self.epsilon = epsilon
        self.border = border
        self.exposure = exposure
        self.strength = strength
        self.brightness_gate = brightness_gate
        self.search_phase = Phase.JOINT
        shared = {'genotype': genotype}
        self.scene_module = _build('SceneModule', shared, scene_module)
        self.scene_loss = _build('SceneLoss', {}, scene_loss)
        self.noise_removal = self.noise_estimator = None
        if variant != 'S':
            self.noise_removal = _build('NoiseRemoval', shared, noise_removal)
            self.task_loss = _build('DenoisingLoss', {}, task_loss)
        if variant == 'A':
            self.noise_estimator = _build('NoiseEstimator', {}, noise_estimator)
            self.noise_loss = _build('NoiseEstimationLoss', {}, noise_loss)

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run one of mmengine's modes.

        Args:
            inputs (Tensor | Sequence[Tensor]): Images, RGB in [0, 1]: shape (N, 3, H, W), or a list of shape (3, H, W)
                whose sizes may differ, as the data preprocessor returns them.
            data_samples (Sequence[BaseDataElement], optional): Their samples.
            mode (str): ``loss``, ``predict`` or ``tensor``.

        Returns:
            Any: A dict of losses, the samples as of :meth:`predict`, or the enhanced images in the form of ``inputs``.

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            enhanced: dict[int, Tensor] = {}
            for indices, y in stack_by_size(inputs):
                enhanced.update(zip(indices, self.enhance(y).enhanced, strict=True))
            images = [enhanced[index] for index in range(len(inputs))]
            return torch.stack(images) if isinstance(inputs, Tensor) else images
        raise ValueError(f"RUAS has no mode {mode!r}; choose 'loss', 'predict' or 'tensor'.")

    def enhance(self, y: Tensor) -> Enhancement:
        """Enhance images of one size.

        Args:
            y (Tensor): Dark images of shape (N, 3, H, W), RGB in [0, 1], any size from 1x1.

        Returns:
            Enhancement: Results of every image.
        """
        level = self.level(small_copy(y)) if self.adjusts else None
        scene = self.scene_module(self.extend(y if level is None else level.expose(y)))
        u, t = scene.features[-1], scene.illuminations[-1]
        x, score = u, None
        if self.noise_estimator is not None:
            score = self.noise_estimator.score(u, self.border)
            noisy = score > self.epsilon
            if noisy.any():
                x = u.clone()
                x[noisy] = self.noise_removal(u[noisy]).clamp(0, 1)
        elif self.noise_removal is not None:
            x = self.noise_removal(u).clamp(0, 1)
        x, u, t = self.crop(x), self.crop(u), self.crop(t)
        if level is not None:
            x, u, t = level.blend(y, x), level.blend(y, u), level.weaken(t)
        return Enhancement(x, u, t, score)

    @property
    def adjusts(self) -> bool:
        """Whether exposure, strength or gate treat images in another way than the model itself does."""
        return self.exposure is not None or self.strength != 1 or self.brightness_gate is not None

    def level(self, copy: Tensor) -> Level:
        """Find what exposure, strength and gate do to images.

        Args:
            copy (Tensor): Small copies of the images, see :func:`small_copy` of ``exposure.py``.

        Returns:
            Level: Gain and strength of each image; it does not depend on its batch mates.
        """
        ones = copy.new_ones(len(copy))
        level = Level(ones, ones)
        if self.exposure is not None:
            level = find_level(lambda y: self.scene_module.unroll(y).features[-1], copy, self.exposure)
        strength = self.strength * level.strength
        if self.brightness_gate is not None:
            strength = torch.where(brightness(copy) > self.brightness_gate, 0, strength)
        return Level(level.gain, strength)

    def extend(self, y: Tensor) -> Tensor:
        """Extend images by ``border`` pixels on every side, their outermost ones repeated.

        Args:
            y (Tensor): Images of shape (N, 3, H, W), any size from 1x1.

        Returns:
            Tensor: Images of shape (N, 3, H + 2 border, W + 2 border).
        """
        return F.pad(y, [self.border] * 4, mode='replicate') if self.border else y

    def crop(self, maps: Tensor) -> Tensor:
        """Undo :meth:`extend` on what was computed of its images.

        Args:
            maps (Tensor): Maps of shape (N, C, H + 2 border, W + 2 border).

        Returns:
            Tensor: Maps of shape (N, C, H, W).
        """
        inside = slice(self.border, -self.border or None)
        return maps[..., inside, inside]

    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[BaseDataElement] | None = None
    ) -> list[BaseDataElement]:
        """Enhance images; an image's result does not depend on its batch mates.

        Args:
            inputs (Tensor | Sequence[Tensor]): Images as in :meth:`forward`.
            data_samples (Sequence[BaseDataElement], optional): Their samples; without any, new ones are made.

        Returns:
            list[BaseDataElement]: The samples with ``enhanced``, ``feature`` and ``illumination``, each of shape
            (3, H, W), see :class:`Enhancement`; with a noise estimator also ``noise_score``, a float.
        """
        samples = [BaseDataElement() for _ in inputs] if data_samples is None else list(data_samples)
        for indices, y in stack_by_size(inputs):
            result = self.enhance(y)
            for place, index in enumerate(indices):
                samples[index].enhanced = result.enhanced[place]
                samples[index].feature = result.feature[place]
                samples[index].illumination = result.illumination[place]
                if result.noise_score is not None:
                    samples[index].noise_score = result.noise_score[place].item()
        return samples

    def loss(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[BaseDataElement] | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of the current phase, each the mean over the images.

        Args:
            inputs (Tensor | Sequence[Tensor]): Images as in :meth:`forward`.
            data_samples (Sequence[BaseDataElement], optional): Not used: there are no labels.

        Returns:
            dict[str, Tensor]: Scalars ``loss_scene_*``, ``loss_denoise_*`` and ``loss_noise_estimate``, as far as
            variant and phase have them.

        Raises:
            ValueError: If the phase is one of the task's and the variant has none.
        """
        losses: dict[str, Tensor] = {}
        for indices, y in stack_by_size(inputs):
            share = len(indices) / len(inputs)
            for name, loss in self._losses(y).items():
                losses[name] = losses.get(name, 0) + share * loss
        return losses

    def _losses(self, y: Tensor) -> dict[str, Tensor]:
        """Return the losses of images of one size."""
        phase, has_task = Phase(self.search_phase), self.noise_removal is not None
        if phase in (Phase.TASK, Phase.COUPLED) and not has_task:
            raise ValueError("RUAS of variant 'S' has no task module: search it with strategy='global'.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and phase is not Phase.TASK):
            scene = self.scene_module(y)
        u, t = scene.features[-1], scene.illuminations[-1]
        losses = {}
        if phase in (Phase.SCENE, Phase.JOINT):
            weight = self.scene_loss_weight if phase is Phase.JOINT and has_task else 1
            losses.update({name: weight * loss for name, loss in self.scene_loss(t, y).items()})
        if phase is Phase.SCENE or not has_task:
            return losses
        if phase is Phase.JOINT and not self.end_to_end:
            u = u.detach()
        losses.update(self.task_loss(self.noise_removal, u))
        if self.noise_estimator is not None:
            losses.update(self.noise_loss(self.noise_estimator, u))
        return losses


def _build(name: str, defaults: dict, config: dict | None) -> torch.nn.Module:
    return MODELS.build({'type': f'ruas_mm.{name}', **defaults, **(config or {})})
