"""The architect: owns the architecture parameters of a model and trains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, all_reduce_params
from mmengine.model import BaseModel
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from torch import Tensor, nn

from ruas_mm.engine.architecture_cost import ArchitectureCost
from ruas_mm.engine.objective import objective, undisturbed
from ruas_mm.engine.slot_statistics import SlotStatistics
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import ExponentiatedGradient, Phase, architecture_gradient, searchable_slots

# How far Adam can move a parameter in a search with lr='auto'; two of them can then be 10 apart.
_TRAVEL = 5.0


class SearchError(RuntimeError):
    """The search cannot continue."""


class Architect:
    """Trains the architecture parameters of a model on validation batches (paper §4.2, Algorithm 1).

    The architecture parameters are divided into those of the scene module, those of the task module, and both
    together; the weights likewise. A step of a phase changes the architecture parameters of that phase only.

    Args:
        model (BaseModel): The model, unwrapped, with searchable slots inside.
        stream (ValidationStream): The batches that the architecture is trained on.
        optimizer (dict): Config of the optimizer of the architecture parameters. ``lr='auto'`` is 5 divided by the
            planned steps of the parameters' phase, so that Adam, which moves a parameter by about ``lr`` per step at
            most, can reach a decision; :class:`ruas_mm.ExponentiatedGradient` has no such bound and refuses it.
        steps (dict[Phase, int]): Planned architecture steps of each phase. Defaults to none, which ``lr='auto'`` does
            not allow.
        order (int): 2, or 1 for the first-order approximation. Defaults to 2.
        beta (float): Weight of the task's validation loss in the gradient of a scene phase, at least 0 (Eq. 7). It is
            not computed at 0. Defaults to 0.
        virtual_lr (float, optional): Step size of the virtual step. Defaults to the largest current learning rate
            among the weights of the phase.
        temperature (tuple[float, float]): Temperature of the softmax at the first and the last step of a phase, above
            0; geometric in between. Defaults to 1 throughout.
        relaxation (str): What the slots run in training, as the search's steps have it: ``softmax`` mixes all
            candidates. ``gumbel`` draws one candidate of each slot for each step. ``sampled`` does so for architecture
            steps, draws uniformly for weight steps, and drops the least probable candidate of each slot at equally
            spaced moments of a phase, so that the last step has one left; see :class:`ruas_mm.search.SearchSlots`.
            Defaults to ``softmax``.
        seed (int): Seed of the draws, at least 0 and the same in all processes. Defaults to 0.
        cost (ArchitectureCost, optional): What is added to the validation loss; :meth:`measure_cost` comes before the
            first step. Defaults to nothing.

    Attributes:
        slots (dict[Phase, list[SearchSlots]]): The searchable slots of each phase.
        weights (dict[Phase, list[nn.Parameter]]): The weights of each phase that require a gradient.
        statistics (SlotStatistics): What the gradients so far say about the candidates.
    """

    def __init__(
        self,
        model: BaseModel,
        stream: ValidationStream,
        optimizer: dict,
        *,
        steps: dict[Phase, int] | None = None,
        order: int = 2,
        beta: float = 0.0,
        virtual_lr: float | None = None,
        temperature: tuple[float, float] = (1.0, 1.0),
        relaxation: str = 'softmax',
        seed: int = 0,
        cost: ArchitectureCost | None = None,
    ) -> None:
        self.model = model
        self.temperature = temperature
        self.relaxation = relaxation
        self.seed = seed
        self.cost = cost
        self.stream = stream
        self.order = order
        self.beta = beta
        self.virtual_lr = virtual_lr
        scene = getattr(model, 'scene_module', None) or nn.Identity()
        self._in_scene = {id(part) for part in (*scene.modules(), *scene.parameters())}
        self.slots = self._by_phase(searchable_slots(model))
        self.statistics = SlotStatistics(self.slots[Phase.JOINT])
        for slots in self.slots[Phase.JOINT]:
            slots.relaxation = relaxation
        self.weights = self._by_phase([p for p in model.parameters() if p.requires_grad])
        self.optimizer = OPTIMIZERS.build(self._optimizer_config(optimizer, steps or {}))
        if optimizer.get('lr') == 'auto' and isinstance(self.optimizer, ExponentiatedGradient):
            raise ValueError(
                "lr='auto' is for optimizers whose steps are bounded by the learning rate, such as Adam; lr of "
                'ExponentiatedGradient must be a number such as 0.1.'
            )
        self.schedulers: list[Any] = []

    def _optimizer_config(self, config: dict, steps: dict[Phase, int]) -> dict[str, Any]:
        if config.get('lr') != 'auto':
            return {**config, 'params': self.alphas(Phase.JOINT)}
        groups = [
            {'params': self.alphas(phase), 'lr': _TRAVEL / count}
            for phase, count in steps.items()
            if count and self.alphas(phase)
        ]
        if not groups:
            raise ValueError("lr='auto' needs at least one planned architecture step, but there is none.")
        return {**config, 'params': groups, 'lr': max(group['lr'] for group in groups)}

    def set_progress(self, phase: Phase, progress: float) -> None:
        """Set the temperature of a phase's slots, and how many of their candidates are open if these are sampled.

        Args:
            phase (Phase): The phase.
            progress (float): How far its architecture steps have come, from 0 to 1.
        """
        first, last = self.temperature
        for slots in self.slots[phase]:
            slots.temperature = first * (last / first) ** progress
            if self.relaxation == 'sampled':
                most = len(slots.candidates)
                slots.keep(most - int(progress * (most - 1) + 1e-9))  # progress may be a rounded fraction

    def measure_cost(self) -> None:
        """Measure the cost of all candidates, if there is one, on the first validation batch, which is not used up."""
        if self.cost is not None:
            place = self.stream.state_dict()
            self.cost.measure(self.model, next(self.stream))
            self.stream.load_state_dict(place)

    def draw(self, iteration: int, weights: bool = False) -> None:
        """Draw the candidates of the next step, where the relaxation draws any.

        The draw depends on the seed, the iteration and the architecture parameters alone: all processes make the same
        one, a resumed run makes those of an undisturbed one, and training's random numbers are left alone.

        Args:
            iteration (int): Iterations done.
            weights (bool): Whether the step is one of the weights, not of the architecture.
        """
        if self.relaxation == 'softmax':
            return
        (seed,) = np.random.SeedSequence((self.seed, iteration, weights)).generate_state(1)
        generator = torch.Generator().manual_seed(int(seed))
        for slots in self.slots[Phase.JOINT]:
            slots.draw(generator, uniform=weights and self.relaxation == 'sampled')

    def _by_phase(self, parts: Sequence[Any]) -> dict[Phase, list[Any]]:
        return {
            Phase.SCENE: [part for part in parts if id(part) in self._in_scene],
            Phase.TASK: [part for part in parts if id(part) not in self._in_scene],
            Phase.JOINT: list(parts),
        }

    def alphas(self, phase: Phase) -> list[nn.Parameter]:
        """Return the architecture parameters of a phase."""
        return [slots.alphas for slots in self.slots[phase]]

    def build_schedulers(
        self, configs: Sequence[dict], epoch_length: int, max_epochs: int | None, max_iters: int
    ) -> None:
        """Build the schedulers of the architecture's optimizer.

        Args:
            configs (Sequence[dict]): Their configs, as mmengine's ``param_scheduler``.
            epoch_length (int): Iterations per epoch.
            max_epochs (int, optional): Epochs of the run, the end of schedulers with ``by_epoch=True``.
            max_iters (int): Iterations of the run, the end of the others.
        """
        for config in configs:
            end = max_epochs if config.get('by_epoch', True) else max_iters
            defaults = dict(optimizer=self.optimizer, epoch_length=epoch_length, end=end)
            self.schedulers.append(PARAM_SCHEDULERS.build(config, default_args=defaults))

    def step_schedulers(self, by_epoch: bool) -> None:
        """Advance the schedulers that count epochs, or those that count iterations."""
        for scheduler in self.schedulers:
            if scheduler.by_epoch is by_epoch:
                scheduler.step()

    def step(
        self, phase: Phase, batch: Any, param_groups: Sequence[dict], weight_phase: Phase | None = None
    ) -> dict[str, Tensor]:
        """Take one step on the next validation batch.

        Weights, buffers, the phase of the model and the random number generators are left as they were.

        Args:
            phase (Phase): Which architecture parameters to train: ``SCENE``, ``TASK`` or ``JOINT``.
            batch (Any): The training batch of the virtual step, as the data loader yields it.
            param_groups (Sequence[dict]): Parameter groups of the weights' optimizer, for the learning rate.
            weight_phase (Phase, optional): The phase whose loss trains the weights, and thus whose weights the virtual
                step moves. Defaults to ``phase``.

        Returns:
            dict[str, Tensor]: The validation losses by the name of their phase, detached.

        Raises:
            SearchError: If the gradient or the new parameters are not finite; the parameters are then unchanged.
        """
        weight_phase = weight_phase or phase
        alphas, weights = self.alphas(phase), self.weights[weight_phase]
        scene_moves = weight_phase is not Phase.TASK
        values: dict[str, Tensor] = {}
        with undisturbed(self.model):
            validation = next(self.stream)
            coupled = None
            if phase is Phase.SCENE and self.beta:
                coupled = objective(self.model, validation, Phase.COUPLED, values)
            gradients = architecture_gradient(
                objective(self.model, batch, weight_phase, scene_moves=scene_moves),
                objective(self.model, validation, phase, values, scene_moves),
                weights,
                alphas,
                virtual_lr=self._virtual_lr(weights, param_groups),
                order=self.order,
                extra_loss=coupled,
                beta=self.beta,
                average=_average,
            )
        if self.cost is not None and self.cost.weight:
            terms = self.cost.gradients(self.slots[phase])
            gradients = [gradient + term for gradient, term in zip(gradients, terms, strict=True)]
        require_finite(gradients, f'architecture gradient of the {phase.value} phase')
        self.statistics.add(self.slots[phase], gradients)
        before = [alpha.detach().clone() for alpha in alphas]
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()
        try:
            require_finite([alpha.detach() for alpha in alphas], f'architecture of the {phase.value} phase')
        except SearchError:
            for alpha, old in zip(alphas, before, strict=True):
                alpha.data.copy_(old)
            raise
        return values

    def _virtual_lr(self, weights: Sequence[Tensor], param_groups: Sequence[dict]) -> float:
        if self.virtual_lr is not None:
            return self.virtual_lr
        ids = {id(weight) for weight in weights}
        return max((group['lr'] for group in param_groups if any(id(p) in ids for p in group['params'])), default=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; the architecture parameters are part of the model's own state."""
        state = {
            'optimizer': self.optimizer.state_dict(),
            'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
            'stream': self.stream.state_dict(),
            'statistics': self.statistics.state_dict(),
        }
        if self.relaxation == 'sampled':
            state['open_candidates'] = [slots.open_candidates for slots in self.slots[Phase.JOINT]]
        if self.cost is not None:
            state['cost'] = self.cost.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            state (dict): What :meth:`state_dict` returned; other keys are ignored.
        """
        self.optimizer.load_state_dict(state['optimizer'])
        for scheduler, saved in zip(self.schedulers, state['schedulers'], strict=True):
            scheduler.load_state_dict(saved)
        self.stream.load_state_dict(state['stream'])
        if 'statistics' in state:  # checkpoints of earlier versions have none
            self.statistics.load_state_dict(state['statistics'])
        if self.relaxation == 'sampled' and 'open_candidates' in state:
            for slots, mask in zip(self.slots[Phase.JOINT], state['open_candidates'], strict=True):
                slots.open_candidates = mask.cpu()
        if self.cost is not None and 'cost' in state:
            self.cost.load_state_dict(state['cost'])


def require_finite(values: Sequence[Tensor], what: str) -> None:
    """Check values on all ranks.

    Args:
        values (Sequence[Tensor]): The values of this rank.
        what (str): Their name, for the message.

    Raises:
        SearchError: On every rank, if a value of any rank is not finite.
    """
    bad = torch.stack([value.isfinite().logical_not().any() for value in values]).any().float()
    all_reduce(bad, op='max')
    if bad:
        raise SearchError(f'The {what} is not finite')


def _average(gradients: list[Tensor]) -> list[Tensor]:
    """Return the means over all processes."""
    all_reduce_params(gradients, op='mean')
    return gradients
