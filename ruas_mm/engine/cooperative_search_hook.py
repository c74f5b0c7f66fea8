"""Cooperative architecture search inside an ordinary mmengine run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ruas_mm.engine.architect import Architect, SearchError, require_finite
from ruas_mm.engine.architecture_cost import ArchitectureCost
from ruas_mm.engine.metric_selection import MetricSelection
from ruas_mm.engine.model_check import check_model
from ruas_mm.engine.objective import set_phase, unwrapped
from ruas_mm.engine.phase_schedule import SCENE_WEIGHTS, STRATEGIES, PhaseSchedule
from ruas_mm.engine.random_search import RandomSearch
from ruas_mm.engine.random_state import get_random_state, set_random_state
from ruas_mm.engine.replicas import check_replicas, search_replicas
from ruas_mm.engine.search_report import SearchReport
from ruas_mm.engine.slot_decisions import load_fallback
from ruas_mm.engine.stopwatch_hook import StopwatchHook
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import RELAXATIONS, GenotypeLike, Phase

_KEY = 'ruas_search'  # of a checkpoint


class CooperativeSearchHook(Hook):
    """Searches the architectures of scene and task module while an ordinary runner trains their weights.

    The hook only connects the parts of a search to the run: :class:`PhaseSchedule` says what is searched when,
    :class:`Architect` takes the architecture's steps, :class:`SearchReport` records and writes the result.

    Before each training iteration the architecture takes a step on a validation batch, with the gradient of METHOD §7;
    then the runner trains the weights on its own batch (paper §4.2, Algorithm 1). In a scene phase (SM) both use the
    scene loss and the task module does not run, but for the beta term. In a task phase (TM) both use the task's loss,
    with the scene module's output detached. The strategies are those of Table IV:

    * ``cooperative``: rounds of ``scene_iters`` iterations of SM, then ``task_iters`` of TM.
    * ``independent``: SM to its end, without the beta term, then TM.
    * ``global``: one architecture: all parameters together, with the loss of ordinary training.

    A fourth one is the baseline that they have to beat:

    * ``random``: ``samples`` random architectures, each trained alone as the config says; see :class:`RandomSearch`.

    Without a scene module every iteration is TM. The model has to follow ``search_phase``, as those built on
    ``SceneModelMixin`` do; ``global`` takes any model with slots inside.

    The gradient is computed in full precision, also under AMP. Buffers (normalisation statistics) and random numbers
    of training are the same afterwards. Checkpoints hold all of the search, so that a run that was killed goes on as if
    it had not been; bit by bit with an epoch-based loop, from the end of the last saved epoch, if its workers are not
    persistent.

    Args:
        val_dataloader (dict): Config of the loader that the architecture is trained on; see ``split_dataset``.
        strategy (str): ``cooperative``, ``independent``, ``global`` or ``random``.
        order (int): 2, or 1 for the first-order approximation.
        beta (float): Weight of the task's validation loss in SM's architecture gradient, at least 0 (Eq. 7).
        scene_iters (int): SM iterations a round, at least 1.
        task_iters (int): TM iterations a round, at least 1.
        warmup (int | float): Iterations of a phase that train weights alone, before its first architecture step: their
            number, or as a float below 1 their share of the phase's iterations.
        virtual_lr (float, optional): Step size xi of the virtual step; by default the largest current learning rate
            among the weights of the phase.
        optimizer (dict, optional): Config of the architecture's optimizer; by default the paper's Adam with lr 3e-4,
            betas (0.5, 0.999) and weight decay 5e-4 (the paper's for detection and segmentation). ``lr='auto'`` is 5
            divided by the number of architecture steps of the phase.
        temperature (tuple[float, float]): Temperature of the softmax at the first and the last architecture step of a
            phase, geometric in between. Records and the genotype's probabilities are those at temperature 1.
        relaxation (str): What a slot runs in training. ``softmax`` mixes all candidates. ``gumbel`` draws one candidate
            per slot and step (GDAS). ``sampled`` does so in architecture steps and draws uniformly in weight steps
            (single path); it drops the least probable candidate of each slot at equally spaced moments of its phase's
            architecture steps, until the last step has one left. With several processes the last two need
            ``find_unused_parameters=True``.
        cost (dict, optional): ``dict(type='macs' | 'params' | 'latency', weight=…, reference=None)`` adds weight *
            expected cost / reference to the architecture's objective; see :class:`ruas_mm.engine.ArchitectureCost`.
        param_scheduler (dict | Sequence[dict], optional): Its schedule, as mmengine's ``param_scheduler``.
        interval (int): Rounds from one record of the architecture to the next.
        patience (int, optional): Ends the search before the loop's end: the genotype unchanged and the architecture
            parameters moved less than ``tolerance`` over so many intervals. None never does.
        tolerance (float): See ``patience``.
        scene_weights (str): ``scene`` trains the weights in each phase by the loss of that phase, as the paper does.
            ``joint`` trains those of both modules by the loss of ordinary training in every iteration, and only the
            architecture alternates: each module then takes as many weight steps as in ``global``.
        fallback (Genotype | Mapping | str | Path, optional): A genotype by value, file or shipped name, such as
            ``ssd_plain``, whose operations the slots take that the search leaves undecided; it need not name all.
            None keeps the most probable candidate there. The genotype marks them in either case.
        replicas (int): Number of independent searches, at least 1: after its own the run repeats the search of its
            config with the next seeds, in ``replica_1`` and so on in the work directory. A slot on which they disagree
            is undecided. One that has ended there, by whichever process, is taken as it is.
        samples (int): Number of architectures of ``random``, at least 1.
        metric (str, optional): Name of the validation metric, as the log shows it, that ``random`` judges them by, with
            the validation of the config; larger is better.
        select (str | dict): How the architecture is chosen at the end: by ``probability``, or by ``metric``: the
            probable candidates are then tried in the trained supernet with the run's validation. A dict
            ``dict(type='metric', …)`` has the options of :class:`~ruas_mm.engine.metric_selection.MetricSelection`.

    Raises:
        ValueError: If an option has no such value; in ``before_train`` if the model, its wrapper, the validation set or
            the checkpoint to resume from is not fit for the search.
        SearchError: In training, if a loss or gradient is not finite.
    """

    # After the hooks that update the run's information; before LoggerHook and CheckpointHook, which show and save it.
    priority = 'NORMAL'

    def __init__(
        self,
        val_dataloader: dict,
        strategy: str = 'cooperative',
        order: int = 2,
        beta: float = 1.0,
        scene_iters: int = 10,
        task_iters: int = 10,
        warmup: int | float = 0,
        virtual_lr: float | None = None,
        optimizer: dict | None = None,
        temperature: tuple[float, float] = (1.0, 1.0),
        relaxation: str = 'softmax',
        cost: dict | None = None,
        param_scheduler: dict | Sequence[dict] | None = None,
        interval: int = 5,
        patience: int | None = None,
        tolerance: float = 0.01,
        scene_weights: str = 'scene',
        fallback: GenotypeLike = None,
        replicas: int = 1,
        samples: int = 8,
        metric: str | None = None,
        select: str | dict = 'probability',
    ) -> None:
        for option, value, choices in (
            ('strategy', strategy, (*STRATEGIES, 'random')),
            ('scene_weights', scene_weights, SCENE_WEIGHTS),
        ):
            if value not in choices:
                raise ValueError(f'CooperativeSearchHook has no {option} {value!r}; choose from {", ".join(choices)}.')
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
        if isinstance(warmup, float) and warmup >= 1:
            raise ValueError(
                f'CooperativeSearchHook needs warmup as a number of iterations or a share below 1, not {warmup}.'
            )
        for option, value in (('replicas', replicas), ('samples', samples)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'CooperativeSearchHook needs {option} as a whole number of at least 1, not {value!r}.'
                )
        if strategy == 'random' and (not isinstance(metric, str) or replicas > 1):
            raise ValueError(
                f"CooperativeSearchHook needs with strategy='random' the name of a metric and replicas=1, not "
                f'metric={metric!r} and replicas={replicas}.'
            )
        if len(temperature) != 2 or min(temperature) <= 0:
            raise ValueError(f'CooperativeSearchHook needs two temperatures above 0, not {temperature!r}.')
        if relaxation not in RELAXATIONS:
            raise ValueError(
                f'CooperativeSearchHook has no relaxation {relaxation!r}; choose from {", ".join(RELAXATIONS)}.'
            )
        self.interval = interval
        self.schedule = PhaseSchedule(strategy, scene_iters, task_iters, warmup, patience, tolerance, scene_weights)
        self._val_dataloader = val_dataloader
        self._optimizer_cfg = optimizer or dict(type='Adam', lr=3e-4, betas=(0.5, 0.999), weight_decay=5e-4)
        self._scheduler_cfg = [param_scheduler] if isinstance(param_scheduler, dict) else list(param_scheduler or ())
        self._gradient = dict(order=order, beta=beta if strategy == 'cooperative' else 0.0, virtual_lr=virtual_lr)
        self._temperature = temperature
        self._origin = dict(strategy=strategy, order=order, beta=beta, scene_weights=scene_weights)
        self._selection = MetricSelection.from_option(select)
        self._relaxation = relaxation
        if relaxation != 'softmax':
            self._origin['relaxation'] = relaxation
        self._cost = None if cost is None else ArchitectureCost(**cost)
        if cost is not None:
            self._origin['cost'] = dict(cost)
        if fallback is not None:
            self._origin['fallback'] = str(fallback) if isinstance(fallback, (str, Path)) else 'given by value'
        self._fallback = fallback
        self._replicas = replicas
        self._samples, self._metric = samples, metric
        self._load_from: str | None = None
        self._stopwatch = StopwatchHook()
        self._loaded: dict[str, Any] | None = None
        self._random_states: list[dict[str, Any]] | None = None

    # --- The run --------------------------------------------------------------------------------------------------

    def before_train(self, runner: Runner) -> None:
        """Check the model, build the architect, and restore the state of the run to resume."""
        self._stopwatch.before_train(runner)
        self.model = unwrapped(runner)
        check_model(runner, self.schedule.strategy, self._relaxation)
        if self._selection:
            self._selection.check(runner)
        if self._replicas > 1:
            check_replicas(runner, type(self))
        if self.schedule.strategy == 'random':
            RandomSearch(runner, self._samples, self._metric, type(self)).run()
            runner.train_loop.stop_training = True
            return
        self._load_from = None if runner._resume else runner._load_from
        loop = runner.train_loop
        self.schedule.start(getattr(self.model, 'scene_module', None) is not None, loop.max_iters)
        steps = {phase: self.schedule.planned_steps(phase) for phase in (Phase.SCENE, Phase.TASK, Phase.JOINT)}
        stream = self._build_stream(runner)
        seed = [runner.seed]
        broadcast_object_list(seed)  # with diff_rank_seed each process has its own
        self.architect = Architect(
            self.model,
            stream,
            self._optimizer_cfg,
            steps=steps,
            temperature=self._temperature,
            relaxation=self._relaxation,
            seed=seed[0],
            cost=self._cost,
            **self._gradient,
        )
        self.architect.build_schedulers(self._scheduler_cfg, len(loop.dataloader), loop.max_epochs, loop.max_iters)
        self._warn_if_undecidable(runner, steps)
        self.architect.measure_cost()
        slots, statistics = self.architect.slots[Phase.JOINT], self.architect.statistics
        fallback = load_fallback(self._fallback, slots)
        self.report = SearchReport(self.model, slots, self._origin, self.schedule, statistics, fallback, self._cost)
        if runner.iter:
            self._resume(runner)
        else:
            self.report.record(runner, 0, self.schedule.ended)
        if self.schedule.ended:
            loop.stop_training = True

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the random number generators of training to where the last epoch left them."""
        if self._random_states is not None:
            set_random_state(self._random_states[get_rank()])

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Take the architecture step of the iteration's phase, and set the phase for the weight step."""
        phase = self.schedule.phase(runner.iter)
        for searched in (Phase.JOINT,) if phase is Phase.JOINT else (Phase.SCENE, Phase.TASK):
            self.architect.set_progress(searched, self.schedule.progress(searched))
        if self.architect.slots[phase] and self.schedule.searches(phase):
            self.schedule.begin_search(phase, runner.iter)
            self.architect.draw(runner.iter)
            with self._saved_on_failure(runner):
                losses = self.architect.step(
                    phase, data_batch, runner.optim_wrapper.param_groups, self.schedule.weight_phase(phase)
                )
            for name, value in losses.items():
                runner.message_hub.update_scalar(f'train/search/val_{name}', value)
        self.architect.draw(runner.iter, weights=True)
        set_phase(self.model, self.schedule.weight_phase(phase))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count the iteration, record the architecture, and end the search if it has settled."""
        phase, done = self.schedule.phase(runner.iter), runner.iter + 1
        set_phase(self.model, Phase.JOINT)
        loss = (outputs or {}).get('loss')
        if loss is not None:
            with self._saved_on_failure(runner):
                require_finite([torch.as_tensor(loss).detach().float()], f'training loss of the {phase.value} phase')
        self.schedule.count(phase)
        self.architect.step_schedulers(by_epoch=False)
        if done % (self.interval * self.schedule.round_length) == 0:
            self.report.record(runner, done, self.schedule.ended)
            remark = self.schedule.check_settled(self.report.history, self.architect.slots, phase, done)
            if remark:
                runner.logger.info(remark)
            if self.schedule.ended:
                runner.train_loop.stop_training = True

    def after_train_epoch(self, runner: Runner) -> None:
        """Advance the schedulers, and keep the random number generators of every rank."""
        self.architect.step_schedulers(by_epoch=True)
        self._random_states = all_gather_object(get_random_state())

    def after_train(self, runner: Runner) -> None:
        """Write the result, after the replicas have found theirs."""
        if self.schedule.strategy == 'random':
            return
        self.schedule.ended = self.schedule.ended or 'the maximum of the training loop was reached'
        records = self.report.history.records
        if not records or records[-1]['iter'] != runner.iter:
            self.report.record(runner, runner.iter, self.schedule.ended)
        seconds = self._stopwatch.seconds()
        if self._replicas > 1:
            slots = {name: group.candidates for group in self.architect.slots[Phase.JOINT] for name in group.names}
            self.report.replicas = search_replicas(runner, self._replicas, type(self), slots, self._load_from)
        self.report.finish(runner, self.schedule.ended, seconds)
        if self._selection:
            self._selection.run(runner, self.architect.slots[Phase.JOINT], self.report.genotype_path(runner))

    @contextmanager
    def _saved_on_failure(self, runner: Runner) -> Iterator[None]:
        """Save the architecture of the last good step if a value inside is not finite."""
        try:
            yield
        except SearchError as error:
            self.report.save_genotype(runner, runner.iter, f'{error} in iteration {runner.iter}')
            raise SearchError(
                f'{error} in iteration {runner.iter}; the architecture of the last good step is in '
                f'{self.report.genotype_path(runner)}. A lower learning rate, virtual_lr or clip_grad may help.'
            ) from None

    # --- Checkpoints ----------------------------------------------------------------------------------------------

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the search to a checkpoint; the architecture parameters are in the model's state."""
        checkpoint[_KEY] = {
            **self.schedule.state_dict(),
            **self.architect.state_dict(),
            'records': self.report.history.records,
            'random_states': self._random_states,
            'load_from': self._load_from,
        }
        self._stopwatch.before_save_checkpoint(runner, checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the search of a checkpoint until it is known whether the run resumes."""
        self._loaded = checkpoint.get(_KEY)
        self._stopwatch.after_load_checkpoint(runner, checkpoint)
        if runner._resume and self._loaded is None:  # before its other parts are loaded, which would not fit
            raise ValueError('The checkpoint to resume from holds no search; use it as load_from to start one from it.')

    def _resume(self, runner: Runner) -> None:
        state, self._loaded = self._loaded, None
        self.schedule.load_state_dict(state)
        self.architect.load_state_dict(state)
        self.report.history.records = state['records']
        self._random_states = state['random_states']
        self._load_from = state.get('load_from')
        world = get_world_size()
        if self._random_states is not None and len(self._random_states) != world:
            runner.logger.warning(
                f'The search was saved by {len(self._random_states)} processes and goes on with {world}: '
                'it draws other random numbers than it would have.'
            )
            self._random_states = None

    # --- Set-up ---------------------------------------------------------------------------------------------------

    def _warn_if_undecidable(self, runner: Runner, steps: dict[Phase, int]) -> None:
        """Say so if Adam, which moves a parameter by at most its rate per step, cannot reach a decision."""
        if not isinstance(self.architect.optimizer, torch.optim.Adam):
            return
        rates = {id(p): group['lr'] for group in self.architect.optimizer.param_groups for p in group['params']}
        for phase, count in steps.items():
            for slots in self.architect.slots[phase] if count else ():
                # The two parameters of a pair move apart at twice the rate.
                margin, needed = 2 * count * rates[id(slots.alphas)], math.log(9 * (len(slots.candidates) - 1))
                if margin < needed:
                    runner.logger.warning(
                        f'{count} architecture steps at a learning rate of {rates[id(slots.alphas)]:.2g} move two '
                        f'parameters of {slots.prefix} apart by at most {margin:.2f}; a probability of 0.9 among '
                        f"{len(slots.candidates)} candidates needs {needed:.2f}. Search longer, or set lr='auto'."
                    )

    def _build_stream(self, runner: Runner) -> ValidationStream:
        try:
            loader: DataLoader = runner.build_dataloader(self._val_dataloader, seed=runner.seed)
        except ValueError as error:
            if 'at least one array' in str(error):  # what mmengine says of a data set without images
                raise ValueError('The validation set of the search is empty: it has no images.') from None
            raise
        return ValidationStream(loader, runner.seed)
