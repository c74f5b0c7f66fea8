"""Cooperative architecture search inside an ordinary mmengine run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, all_reduce_params, get_rank, get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ruas_mm.engine.objective import objective, set_phase, undisturbed
from ruas_mm.engine.random_state import get_random_state, set_random_state
from ruas_mm.engine.search_history import SearchHistory, entropy
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import Phase, architecture_gradient, derive_genotype, searchable_slots

STRATEGIES = ('cooperative', 'independent', 'global')
_KEY = 'ruas_search'  # of a checkpoint


class SearchError(RuntimeError):
    """A search cannot go on."""


class CooperativeSearchHook(Hook):
    """Searches the architectures of scene and task module while an ordinary runner trains their weights.

    Before each training iteration the architecture takes a step on a validation batch, with the gradient of METHOD §7;
    then the runner trains the weights on its own batch (paper §4.2, Algorithm 1). In a scene phase (SM) both use the
    scene loss and the task module does not run, but for the beta term. In a task phase (TM) both use the task's loss,
    with the scene module's output detached. The strategies are those of Table IV:

    * ``cooperative``: rounds of ``scene_iters`` iterations of SM, then ``task_iters`` of TM.
    * ``independent``: SM to its end, without the beta term, then TM.
    * ``global``: one architecture: all parameters together, with the loss of ordinary training.

    Without a scene module every iteration is TM. The model has to follow ``search_phase``, as those built on
    ``SceneModelMixin`` do; ``global`` takes any model with slots inside.

    The gradient is computed in full precision, also under AMP. Buffers (normalisation statistics) and random numbers
    of training are the same afterwards. Checkpoints hold all of the search, so that a run that was killed goes on as if
    it had not been; bit by bit with an epoch-based loop, from the end of the last saved epoch, if its workers are not
    persistent.

    Args:
        val_dataloader (dict): Config of the loader that the architecture is trained on; see ``split_dataset``.
        strategy (str): ``cooperative``, ``independent`` or ``global``.
        order (int): 2, or 1 for the first-order approximation.
        beta (float): Weight of the task's validation loss in SM's architecture gradient, at least 0 (Eq. 7).
        scene_iters (int): SM iterations a round, at least 1.
        task_iters (int): TM iterations a round, at least 1.
        warmup (int): Iterations of a phase that train weights alone, before its first architecture step.
        virtual_lr (float, optional): Step size xi of the virtual step; by default the largest current learning rate
            among the weights of the phase.
        optimizer (dict, optional): Config of the architecture's optimizer; by default the paper's Adam with lr 3e-4,
            betas (0.5, 0.999) and weight decay 5e-4 (the paper's for detection and segmentation).
        param_scheduler (dict | Sequence[dict], optional): Its schedule, as mmengine's ``param_scheduler``.
        interval (int): Rounds from one record of the architecture to the next.
        patience (int, optional): Ends the search before the loop's end: the genotype unchanged and the architecture
            parameters moved less than ``tolerance`` over so many intervals. None never does.
        tolerance (float): See ``patience``.

    Raises:
        ValueError: If an option has no such value; in ``before_train`` if the model, its wrapper, the validation set or
            the checkpoint to resume from is not fit for the search.
        SearchError: In training, if a loss or gradient is not finite.
    """

    def __init__(
        self,
        val_dataloader: dict,
        strategy: str = 'cooperative',
        order: int = 2,
        beta: float = 1.0,
        scene_iters: int = 10,
        task_iters: int = 10,
        warmup: int = 0,
        virtual_lr: float | None = None,
        optimizer: dict | None = None,
        param_scheduler: dict | Sequence[dict] | None = None,
        interval: int = 5,
        patience: int | None = None,
        tolerance: float = 0.01,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(
                f'CooperativeSearchHook has no strategy {strategy!r}; choose from {", ".join(STRATEGIES)}.'
            )
        if order not in (1, 2):
            raise ValueError(f'CooperativeSearchHook has no order {order!r}; choose 1 or 2.')
        for option, value, minimum in (
            ('beta', beta, 0),
            ('scene_iters', scene_iters, 1),
            ('task_iters', task_iters, 1),
            ('warmup', warmup, 0),
            ('interval', interval, 1),
            ('patience', 1 if patience is None else patience, 1),
            ('virtual_lr', 0 if virtual_lr is None else virtual_lr, 0),
            ('tolerance', tolerance, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value < math.inf:
                raise ValueError(f'CooperativeSearchHook needs {option} >= {minimum}, a number, not {value!r}.')
        self.strategy = strategy
        self.order = order
        self.beta = beta
        self.scene_iters = scene_iters
        self.task_iters = task_iters
        self.warmup = warmup
        self.virtual_lr = virtual_lr
        self.interval = interval
        self.patience = patience
        self.tolerance = tolerance
        self._val_dataloader = val_dataloader
        self._optimizer_cfg = optimizer or dict(type='Adam', lr=3e-4, betas=(0.5, 0.999), weight_decay=5e-4)
        self._scheduler_cfg = [param_scheduler] if isinstance(param_scheduler, dict) else list(param_scheduler or ())
        self._loaded: dict[str, Any] | None = None
        self._random_states: list[dict[str, Any]] | None = None
        self.history = SearchHistory()
        self._iterations = {phase.value: 0 for phase in Phase}  # of each phase so far
        self._searched_since: dict[str, int] = {}  # phase -> iteration of its first architecture step
        self._scene_ended: int | None = None  # iteration at which the independent strategy went over to TM
        self._ended: str | None = None  # why there are no more architecture steps

    # --- The run: set up, iterate, finish -------------------------------------------------------------------------

    def before_train(self, runner: Runner) -> None:
        """Check the model, build stream, optimizer and schedule, and take up the state of the run to resume."""
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        scene = getattr(self.model, 'scene_module', None)
        self.slots = searchable_slots(self.model)
        inside = set() if scene is None else {id(module) for module in scene.modules()}
        self._alphas = {
            Phase.SCENE: [slots.alphas for slots in self.slots if id(slots) in inside],
            Phase.TASK: [slots.alphas for slots in self.slots if id(slots) not in inside],
            Phase.JOINT: [slots.alphas for slots in self.slots],
        }
        of_scene = set() if scene is None else {id(p) for p in scene.parameters()}
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self._weights = {
            Phase.SCENE: [p for p in trained if id(p) in of_scene],
            Phase.TASK: [p for p in trained if id(p) not in of_scene],
            Phase.JOINT: trained,
        }
        self._check(runner, scene)
        self._has_scene = scene is not None
        self.optimizer = OPTIMIZERS.build({**self._optimizer_cfg, 'params': self._alphas[Phase.JOINT]})
        self.schedulers = [self._build_scheduler(runner, cfg) for cfg in self._scheduler_cfg]
        self.stream = ValidationStream(self._build_loader(runner), runner.seed)
        if runner.iter:
            self._resume(runner)
        else:
            self._record(runner, 0)
        if self._ended:
            runner.train_loop.stop_training = True

    def before_train_epoch(self, runner: Runner) -> None:
        """Take training's random numbers up where the last epoch left them, whatever was drawn in between."""
        if self._random_states is not None:
            set_random_state(self._random_states[get_rank()])

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the phase and take its architecture step."""
        phase = self._phase(runner)
        if not self._ended and self._alphas[phase] and self._iterations[phase.value] >= self.warmup:
            self._architecture_step(runner, phase, data_batch)
        set_phase(self.model, phase)  # the weight step's

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count, record, and see whether the search has settled."""
        phase = self._phase(runner)
        set_phase(self.model, Phase.JOINT)
        loss = (outputs or {}).get('loss')
        if loss is not None:
            value = torch.as_tensor(loss).detach().float()
            self._check_finite(runner, [value], f'training loss of the {phase.value} phase')
        self._iterations[phase.value] += 1
        for scheduler in self.schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
        if (runner.iter + 1) % (self.interval * (self.scene_iters + self.task_iters)) == 0:
            self._record(runner, runner.iter + 1)
            self._stop_if_settled(runner, phase)

    def after_train_epoch(self, runner: Runner) -> None:
        """Step the schedule, and keep every rank's random numbers for the checkpoint and the next epoch."""
        for scheduler in self.schedulers:
            if scheduler.by_epoch:
                scheduler.step()
        self._random_states = all_gather_object(get_random_state())

    def after_train(self, runner: Runner) -> None:
        """Write what was found."""
        self._ended = self._ended or 'the maximum of the training loop was reached'
        if not self.history.records or self.history.records[-1]['iter'] != runner.iter:
            self._record(runner, runner.iter)
        self._report(runner)

    # --- Phases ---------------------------------------------------------------------------------------------------

    def _phase(self, runner: Runner) -> Phase:
        if self.strategy == 'global':
            return Phase.JOINT
        if not self._has_scene:
            return Phase.TASK
        length = self.scene_iters + self.task_iters
        if self.strategy == 'independent':
            end = runner.max_iters * self.scene_iters // length if self._scene_ended is None else self._scene_ended
            return Phase.SCENE if runner.iter < end else Phase.TASK
        return Phase.SCENE if runner.iter % length < self.scene_iters else Phase.TASK

    def _stop_if_settled(self, runner: Runner, phase: Phase) -> None:
        if self._ended or self.patience is None:
            return
        # What has to settle: in rounds both modules, otherwise what the phase searches.
        phases = (Phase.SCENE, Phase.TASK) if self.strategy == 'cooperative' else (phase,)
        phases = [phase for phase in phases if self._alphas[phase]]
        if any(phase.value not in self._searched_since for phase in phases):
            return
        since = max((self._searched_since[phase.value] for phase in phases), default=0)
        alphas = {id(alpha) for phase in phases for alpha in self._alphas[phase]}
        slots = [slot for group in self.slots if id(group.alphas) in alphas for slot in group.names]
        if not self.history.settled(slots, self.patience, self.tolerance, since):
            return
        if self.strategy == 'independent' and phase is Phase.SCENE:
            self._scene_ended = runner.iter + 1
            runner.logger.info(f'The architecture of the scene module has settled after {runner.iter + 1} iterations.')
        else:
            self._ended = f'the architecture settled after {runner.iter + 1} iterations'
            runner.train_loop.stop_training = True

    # --- The architecture step ------------------------------------------------------------------------------------

    def _architecture_step(self, runner: Runner, phase: Phase, batch: Any) -> None:
        """One step of the phase's architecture parameters on the next validation batch."""
        alphas, weights = self._alphas[phase], self._weights[phase]
        self._searched_since.setdefault(phase.value, runner.iter)
        values: dict[str, Tensor] = {}
        with undisturbed(self.model):
            validation = next(self.stream)
            coupled = None
            if phase is Phase.SCENE and self.strategy == 'cooperative' and self.beta:
                coupled = objective(self.model, validation, Phase.COUPLED, values)
            gradients = architecture_gradient(
                objective(self.model, batch, phase),
                objective(self.model, validation, phase, values),
                weights,
                alphas,
                virtual_lr=self._virtual_lr(runner, weights),
                order=self.order,
                extra_loss=coupled,
                beta=self.beta,
                average=_average,
            )
        self._check_finite(runner, gradients, f'architecture gradient of the {phase.value} phase')
        for name, value in values.items():
            runner.message_hub.update_scalar(f'train/search/val_{name}', value)
        before = [alpha.detach().clone() for alpha in alphas]
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()
        stepped = [alpha.detach().clone() for alpha in alphas]
        if not all(alpha.isfinite().all() for alpha in stepped):  # the same on all ranks
            for alpha, old in zip(alphas, before, strict=True):
                alpha.data.copy_(old)
            self._check_finite(runner, stepped, f'architecture of the {phase.value} phase')

    def _virtual_lr(self, runner: Runner, weights: Sequence[Tensor]) -> float:
        if self.virtual_lr is not None:
            return self.virtual_lr
        ids = {id(weight) for weight in weights}
        groups = runner.optim_wrapper.param_groups
        return max((g['lr'] for g in groups if any(id(p) in ids for p in g['params'])), default=0.0)

    def _check_finite(self, runner: Runner, values: Sequence[Tensor], what: str) -> None:
        """Stop all ranks if one has a value that is not finite; the architecture is that of the last good step."""
        bad = torch.stack([value.isfinite().logical_not().any() for value in values]).any().float()
        all_reduce(bad, op='max')
        if bad:
            path = self._genotype_path(runner)
            self._save_genotype(runner, runner.iter, f'the {what} was not finite in iteration {runner.iter}')
            raise SearchError(
                f'The {what} is not finite in iteration {runner.iter}; the architecture of the last good step is in '
                f'{path}. A lower learning rate, virtual_lr or clip_grad may help.'
            )

    # --- What is kept and shown -----------------------------------------------------------------------------------

    def _record(self, runner: Runner, iteration: int) -> None:
        """Record the architecture, and show it in log and visualizer."""
        probabilities = self.history.add(iteration, self.slots)
        scalars = {}
        lines = []
        for group in self.slots:
            entropies = [entropy(probabilities[slot]) for slot in group.names]
            mean, most = sum(entropies) / len(entropies), math.log(len(group.candidates))
            scalars[f'search/entropy/{group.prefix}'] = mean
            choices = []
            for slot in group.names:
                for candidate, p in probabilities[slot].items():
                    scalars[f'search/probability/{slot}/{candidate}'] = p
                best = max(probabilities[slot], key=probabilities[slot].get)
                choices.append(f'{slot.rpartition(".")[2]} {best} {probabilities[slot][best]:.3f}')
            lines.append(f'  {group.prefix} (entropy {mean:.3f} of {most:.3f}): {", ".join(choices)}')
        runner.logger.info('\n'.join([f'Architecture after {iteration} iterations:', *lines]))
        runner.visualizer.add_scalars(scalars, step=iteration)
        self._save_genotype(runner, iteration, self._ended or 'not ended yet')

    @staticmethod
    def _genotype_path(runner: Runner) -> Path:
        return Path(runner.work_dir, 'genotype.json')

    @master_only
    def _save_genotype(self, runner: Runner, iteration: int, ended: str) -> None:
        origin = {
            'config': runner.cfg.filename,
            'strategy': self.strategy,
            'order': self.order,
            'beta': self.beta,
            'seed': runner.seed,
            'iterations': iteration,
            'ended': ended,
        }
        derive_genotype(self.model, origin).save(self._genotype_path(runner))

    @master_only
    def _report(self, runner: Runner) -> None:
        """Write genotype and drawings, and say how to train what was found."""
        # Here, because matplotlib takes long to import.
        from ruas_mm.visualization.architecture import draw_architecture
        from ruas_mm.visualization.probabilities import plot_probabilities

        path = self._genotype_path(runner)
        self._save_genotype(runner, runner.iter, self._ended)
        edges = {name: edge for group in self.slots for name, edge in zip(group.names, group.edges, strict=True)}
        draw_architecture(derive_genotype(self.model), edges, path.with_name('architecture.png'))
        plot_probabilities(self.history.records, path.with_name('probabilities.png'))
        searched = Path(runner.cfg.filename or 'CONFIG.py')
        trained = searched.with_name(searched.name.replace('_search', ''))
        option = f'--genotype {shlex.quote(str(path))}'
        if trained != searched and trained.is_file():
            advice = f'To train it:\n  python tools/train.py {shlex.quote(str(trained))} {option}'
        else:
            advice = f'To train it, give tools/train.py the config of the model without the search, and {option}'
        runner.logger.info(
            f'The search has ended: {self._ended}. It found {path} (architecture.png, probabilities.png beside it). '
            f'{advice}'
        )

    # --- Checkpoints ----------------------------------------------------------------------------------------------

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the search to a checkpoint; the architecture parameters are in the model's state."""
        checkpoint[_KEY] = {
            'strategy': self.strategy,
            'optimizer': self.optimizer.state_dict(),
            'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
            'stream': self.stream.state_dict(),
            'records': self.history.records,
            'iterations': self._iterations,
            'searched_since': self._searched_since,
            'scene_ended': self._scene_ended,
            'ended': self._ended,
            'random_states': self._random_states,
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the search of a checkpoint until it is known whether the run resumes."""
        self._loaded = checkpoint.get(_KEY)
        if runner._resume and self._loaded is None:  # before its other parts are loaded, which would not fit
            raise ValueError('The checkpoint to resume from holds no search; use it as load_from to start one from it.')

    def _resume(self, runner: Runner) -> None:
        state, self._loaded = self._loaded, None
        if state['strategy'] != self.strategy:
            raise ValueError(
                f'The checkpoint to resume from is of a search with strategy {state["strategy"]!r}, not '
                f'{self.strategy!r}.'
            )
        self.optimizer.load_state_dict(state['optimizer'])
        for scheduler, saved in zip(self.schedulers, state['schedulers'], strict=True):
            scheduler.load_state_dict(saved)
        self.stream.load_state_dict(state['stream'])
        self.history.records = state['records']
        self._iterations, self._searched_since = state['iterations'], state['searched_since']
        self._scene_ended, self._ended = state['scene_ended'], state['ended']
        self._random_states = state['random_states']
        world = get_world_size()
        if self._random_states is not None and len(self._random_states) != world:
            runner.logger.warning(
                f'The search was saved by {len(self._random_states)} processes and goes on with {world}: '
                'it draws other random numbers than it would have.'
            )
            self._random_states = None

    # --- Set-up ---------------------------------------------------------------------------------------------------

    def _check(self, runner: Runner, scene: nn.Module | None) -> None:
        model = type(self.model).__name__
        if not self.slots:
            raise ValueError(
                f'{model} has no searchable slots: build its scene module, neck or head with genotype=None.'
            )
        if self.strategy == 'global':
            return
        if not hasattr(self.model, 'search_phase'):
            raise ValueError(
                f'The strategy {self.strategy!r} needs a model with search phases, such as those built on '
                f"SceneModelMixin; {model} can be searched with strategy='global'."
            )
        if scene is not None and self.model.scene_loss is None:
            raise ValueError(f'The scene phase needs a scene loss, but {model} was built with scene_loss=None.')
        if is_model_wrapper(runner.model) and not getattr(runner.model, 'find_unused_parameters', True):
            raise ValueError(
                f'With several processes the strategy {self.strategy!r} needs find_unused_parameters=True in the '
                'config: each phase trains a part of the model.'
            )

    def _build_loader(self, runner: Runner) -> DataLoader:
        try:
            return runner.build_dataloader(self._val_dataloader, seed=runner.seed)
        except ValueError as error:
            if 'at least one array' in str(error):  # what mmengine says of a data set without images
                raise ValueError('The validation set of the search is empty: it has no images.') from None
            raise

    def _build_scheduler(self, runner: Runner, cfg: dict) -> Any:
        loop = runner.train_loop
        end = loop.max_epochs if cfg.get('by_epoch', True) else loop.max_iters
        defaults = dict(optimizer=self.optimizer, epoch_length=len(loop.dataloader), end=end)
        return PARAM_SCHEDULERS.build(cfg, default_args=defaults)


def _average(gradients: list[Tensor]) -> list[Tensor]:
    """Return the means over all processes."""
    all_reduce_params(gradients, op='mean')
    return gradients
