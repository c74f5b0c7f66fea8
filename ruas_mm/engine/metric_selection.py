"""Selection by the metric: the probable candidates of a search, tried one slot at a time in the trained supernet."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, broadcast_object_list, is_main_process
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from ruas_mm.engine.objective import set_phase, undisturbed, unwrapped
from ruas_mm.engine.random_state import seed_all
from ruas_mm.engine.validation_stream import ValidationStream
from ruas_mm.search import Genotype, Phase, SearchSlots, searchable_slots, slot_edges
from ruas_mm.utils.fileio import atomic_write

# Architecture parameter of the candidates that are not chosen: their softmax is exactly 0 up to a temperature of 10.
_NEVER = -1e4
# Last parts of the names of figures of which less is better; all others are taken to be better when greater.
_LESS = ('loss', 'mae', 'mse', 'rmse', 'lpips', 'niqe', 'fid')


# --- One architecture in a supernet -------------------------------------------------------------------------------


@contextmanager
def chosen(slots: Sequence[SearchSlots], architecture: Mapping[str, str]) -> Iterator[None]:
    """Let every slot use one operation alone, and put the architecture parameters back afterwards.

    Args:
        slots (Sequence[SearchSlots]): Slots in searchable form.
        architecture (Mapping[str, str]): Operation of each of their slots.

    Raises:
        ValueError: If a slot is missing, or its operation is not among the candidates.
    """
    rows = []
    for group in slots:
        genotype = Genotype({name: architecture[name] for name in group.names if name in architecture})
        indices = [group.candidates.index(name) for name in genotype.choose(group.names, group.candidates)]
        row = torch.full_like(group.alphas, _NEVER)
        row[torch.arange(len(indices)), indices] = 0
        rows.append(row)
    before = [(group.alphas.detach().clone(), group.relaxation) for group in slots]
    try:
        for group, row in zip(slots, rows, strict=True):
            group.alphas.data.copy_(row)
            group.relaxation = 'softmax'  # nothing is drawn, and no candidate is closed
        yield
    finally:
        for group, (row, relaxation) in zip(slots, before, strict=True):
            group.alphas.data.copy_(row)
            group.relaxation = relaxation


@torch.no_grad()
def estimate_batch_statistics(model: BaseModel, batches: Sequence[Any]) -> None:
    """Estimate the running statistics of batch normalisation anew, as means over batches and processes.

    Layers that the model keeps in evaluation mode (``norm_eval``) keep their statistics. As
    ``torch.optim.swa_utils.update_bn``, which would reset those too. The model is in training mode afterwards.

    Args:
        model (BaseModel): The model, unwrapped.
        batches (Sequence[Any]): Training batches as their data loader yields them; left as they are.
    """
    model.train()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches so far
    try:
        for batch in batches:
            model._run_forward(model.data_preprocessor(copy.deepcopy(batch), True), mode='loss')
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    all_reduce_params([b for layer in layers for b in (layer.running_mean, layer.running_var)], op='mean')


class SupernetEvaluator:
    """Measures architectures in a trained supernet with the validation of its run.

    Every measurement uses the same training batches and random numbers, and calls no hook. Weights, architecture
    parameters, buffers, random numbers and the modes of all modules are left as they were.

    Args:
        runner (Runner): The run, with a validation loop; its model holds the supernet.
        train_loader (torch.utils.data.DataLoader): Batches for the statistics of batch normalisation.
        batches (int): Their number, at least 1. Defaults to 10.
        metric (str, optional): Name of the figure, with or without mmengine's prefix; by default the first one.

    Attributes:
        metric (str, optional): Full name of the figure, once it is known.
        model (BaseModel): The supernet, unwrapped.
    """

    def __init__(self, runner: Runner, train_loader: Any, batches: int = 10, metric: str | None = None) -> None:
        self.metric = metric
        self._runner = runner
        self.model = unwrapped(runner)
        stream = ValidationStream(train_loader, runner.seed)
        self._batches = [next(stream) for _ in range(batches)]

    def __call__(self, architecture: Mapping[str, str]) -> float:
        """Measure one architecture; batch statistics are estimated anew.

        Args:
            architecture (Mapping[str, str]): Operation of each searchable slot.

        Returns:
            float: The figure, equal on all processes.

        Raises:
            ValueError: If the architecture does not fit the slots, or the validation does not give the figure.
        """
        with self._restored(), chosen(searchable_slots(self.model), architecture):
            estimate_batch_statistics(self.model, self._batches)
            return self._validate()

    def as_trained(self) -> float:
        """Measure the mixture of all candidates, with the statistics of training."""
        with self._restored():
            return self._validate()

    @contextmanager
    def _restored(self) -> Iterator[None]:
        modes = [(module, module.training) for module in self._runner.model.modules()]
        try:
            with undisturbed(self.model):
                set_phase(self.model, Phase.JOINT)
                seed_all(self._runner.seed)
                yield
        finally:
            for module, training in modes:
                module.training = training

    def _validate(self) -> float:
        with _silent(self._runner):
            metrics = self._runner.val_loop.run()
        self.metric = find_metric(metrics, self.metric)
        value = [float(metrics[self.metric])]
        broadcast_object_list(value)
        return value[0]


@contextmanager
def _silent(runner: Runner) -> Iterator[None]:
    """Keep the hooks of training out of a validation (best checkpoints, logs), and the evaluator's tables too."""
    hooks, level = runner._hooks, runner.logger.level
    runner._hooks = []
    runner.logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        runner._hooks = hooks
        runner.logger.setLevel(level)


def find_metric(metrics: Mapping[str, Any], name: str | None) -> str:
    """Return the full name of a figure.

    Args:
        metrics (Mapping[str, Any]): Figures as mmengine's evaluator returns them.
        name (str, optional): A name with or without the prefix (``pascal_voc/mAP``, ``mAP``); None for the first one.

    Returns:
        str: A key of ``metrics``.

    Raises:
        ValueError: If no figure or several have that name.
    """
    found = [key for key in metrics if name in (None, key)] or [key for key in metrics if key.endswith(f'/{name}')]
    if not found or (name is not None and len(found) > 1):
        what = f'several metrics {name!r}' if found else f'no metric {name!r}' if name else 'no metric'
        raise ValueError(f'The validation gives {what}; it gives {", ".join(metrics) or "none"}.')
    return found[0]


def greater_is_better(metric: str) -> bool:
    """Return whether a figure improves as it grows, judged by the last part of its name (``niqe``: it does not)."""
    return not any(part in _LESS for part in metric.lower().rpartition('/')[2].split('_'))


# --- Selection ----------------------------------------------------------------------------------------------------


@dataclass
class Descent:
    """What :func:`coordinate_descent` did.

    Attributes:
        selected (dict[str, str]): The best architecture that it came to.
        before (float): Figure of the architecture that it started from.
        after (float): Figure of the selected one.
        importance (dict[str, float]): Change of the figure when the slot's choice is replaced by its first
            alternative, without sign; the most important slot first.
        evaluations (list[dict]): Every measurement: ``changes`` from the start (operation by slot), and ``value``.
        complete (bool): Whether the limit of evaluations left nothing out.
    """

    selected: dict[str, str]
    before: float = math.nan
    after: float = math.nan
    importance: dict[str, float] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True


def coordinate_descent(
    evaluate: Callable[[dict[str, str]], float],
    start: Mapping[str, str],
    alternatives: Mapping[str, Sequence[str]],
    *,
    slots: int | None = None,
    max_evaluations: int | None = None,
    greater: bool | Callable[[], bool] = True,
) -> Descent:
    """Improve an architecture one slot at a time, in one pass.

    First each slot's choice is replaced by its first alternative, the others as at the start: the change of the figure
    is the importance of the slot. Then the slots are visited, the most important first; each takes the best of its
    choice and its alternatives, the others at their current choice. A choice gives way to a better figure only. No
    architecture is measured twice; a figure that is not a number counts as the worst.

    Args:
        evaluate (Callable): Returns the figure of an architecture.
        start (Mapping[str, str]): Operation of each slot.
        alternatives (Mapping[str, Sequence[str]]): Other operations to try, by slot, the most promising first.
        slots (int, optional): Number of slots to visit; all by default.
        max_evaluations (int, optional): Largest number of measurements, at least 1; not limited by default.
        greater (bool | Callable): Whether a greater figure is better; a function is called after the first measurement.

    Returns:
        Descent: The result.
    """
    start = dict(start)
    result, known = Descent(start), {}
    sign = 1.0

    def measure(architecture: dict[str, str]) -> float:
        key = tuple(architecture[slot] for slot in start)
        if key not in known:
            if max_evaluations is not None and len(known) >= max_evaluations:
                raise _Exhausted
            known[key] = evaluate(architecture)
            changes = {slot: name for slot, name in architecture.items() if name != start[slot]}
            result.evaluations.append({'changes': changes, 'value': known[key]})
        return known[key]

    def score(architecture: dict[str, str]) -> float:
        """Return the figure so that greater is better."""
        value = measure(architecture)
        return -math.inf if math.isnan(value) else sign * value

    result.before = measure(start)
    sign = 1.0 if (greater() if callable(greater) else greater) else -1.0
    best = first = score(start)
    importance: dict[str, float] = {}
    with _noted_exhaustion(result):
        for slot in (slot for slot in start if alternatives.get(slot)):
            other = score({**start, slot: alternatives[slot][0]})
            importance[slot] = 0.0 if other == first else abs(other - first)
    order = sorted(importance, key=importance.get, reverse=True)
    result.importance = {slot: importance[slot] for slot in order}
    with _noted_exhaustion(result):
        for slot in order[:slots]:
            current = result.selected
            for name in alternatives[slot]:
                value = score({**current, slot: name})
                if value > best:
                    best, result.selected = value, {**current, slot: name}
    result.after = measure(result.selected)
    return result


class _Exhausted(Exception):
    """There are no evaluations left."""


@contextmanager
def _noted_exhaustion(result: Descent) -> Iterator[None]:
    try:
        yield
    except _Exhausted:
        result.complete = False


def probable_alternatives(
    slots: Sequence[SearchSlots], architecture: Mapping[str, str], candidates: int
) -> dict[str, list[str]]:
    """Return the most probable candidates of every slot beside its choice.

    Args:
        slots (Sequence[SearchSlots]): Slots in searchable form.
        architecture (Mapping[str, str]): Operation of each slot.
        candidates (int): How many of each slot's most probable candidates to consider.

    Returns:
        dict[str, list[str]]: Operations by slot, the most probable first, without the architecture's own.
    """
    result = {}
    for group in slots:
        for slot, row in group.probabilities().items():
            probable = sorted(row, key=row.get, reverse=True)[:candidates]
            result[slot] = [name for name in probable if name != architecture[slot]]
    return result


@dataclass(frozen=True)
class MetricSelection:
    """Options of ``select=dict(type='metric', …)`` of :class:`ruas_mm.CooperativeSearchHook`.

    Attributes:
        metric (str, optional): Figure of the run's validation, with or without mmengine's prefix, such as
            ``pascal_voc/mAP``, ``mIoU`` or ``PSNR``; by default the first one.
        rule (str, optional): ``greater`` or ``less`` is better; by default ``less`` for losses and errors by their
            name (``niqe``, ``lpips``, ``mse``, …), ``greater`` for all others.
        candidates (int): The most probable candidates of a slot that are considered, at least 2.
        slots (int, optional): Number of slots to visit, the most important first, at least 1; all by default.
        max_evaluations (int, optional): Largest number of architectures to measure, at least 1; not limited by default.
        batches (int): Training batches that batch statistics are estimated on, for each architecture, at least 1.
    """

    metric: str | None = None
    rule: str | None = None
    candidates: int = 3
    slots: int | None = None
    max_evaluations: int | None = None
    batches: int = 10

    def __post_init__(self) -> None:
        for option, minimum in (('candidates', 2), ('slots', 1), ('max_evaluations', 1), ('batches', 1)):
            value = getattr(self, option)
            if value is None and option in ('slots', 'max_evaluations'):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ValueError(f'select needs {option} >= {minimum}, a whole number, not {value!r}.')
        if self.rule not in (None, 'greater', 'less'):
            raise ValueError(f"select has no rule {self.rule!r}; choose 'greater' or 'less'.")
        if not (self.metric is None or isinstance(self.metric, str)):
            raise ValueError(f'select needs metric as a name, not {self.metric!r}.')

    @classmethod
    def from_option(cls, select: str | Mapping[str, Any]) -> MetricSelection | None:
        """Read the hook's option ``select``.

        Args:
            select (str | Mapping): ``probability``, ``metric``, or a dict with one of them as its ``type``.

        Returns:
            MetricSelection | None: None for a selection by probability.

        Raises:
            ValueError: If it is neither, or an option is unknown or has no such value.
        """
        options = dict(select) if isinstance(select, Mapping) else {'type': select}
        kind = options.pop('type', None)
        known = [option.name for option in fields(cls)] if kind == 'metric' else []
        if kind not in ('probability', 'metric'):
            raise ValueError(f"CooperativeSearchHook cannot select by {kind!r}; choose 'probability' or 'metric'.")
        for option in options:
            if option not in known:
                raise ValueError(
                    f'select of type {kind!r} has no option {option!r}; its options are {", ".join(known) or "none"}.'
                )
        return cls(**options) if kind == 'metric' else None

    def check(self, runner: Runner) -> None:
        """Refuse a run without validation.

        Args:
            runner (Runner): The run, before its training.

        Raises:
            ValueError: If it has no validation loop.
        """
        if runner.val_loop is None:
            raise ValueError(
                "select='metric' needs val_dataloader, val_cfg and val_evaluator in the config, but it has none: give "
                "it the part 'architecture' of the training images with the pipeline of the test."
            )

    def run(self, runner: Runner, slots: Sequence[SearchSlots], path: Path) -> None:
        """Select the architecture at the end of a search.

        Starts from the architecture of the genotype file, and writes the selected one into it, with ``selection.json``
        and a new ``architecture.png`` beside it.

        Args:
            runner (Runner): The run, after its training.
            slots (Sequence[SearchSlots]): The searchable slots of its model.
            path (Path): The genotype that the search has written.
        """
        began = time.monotonic()
        names = [name for group in slots for name in group.names]
        given = [Genotype.load(path).slots if is_main_process() else None]
        broadcast_object_list(given)
        start = {name: given[0][name] for name in names}
        evaluator = SupernetEvaluator(runner, runner.train_dataloader, self.batches, self.metric)
        result = coordinate_descent(
            evaluator,
            start,
            probable_alternatives(slots, start, self.candidates),
            slots=self.slots,
            max_evaluations=self.max_evaluations,
            greater=lambda: self.rule == 'greater' if self.rule else greater_is_better(evaluator.metric),
        )
        changed = {name: [start[name], result.selected[name]] for name in names if start[name] != result.selected[name]}
        if is_main_process():
            summary = {
                'metric': evaluator.metric,
                'before': result.before,
                'after': result.after,
                'evaluations': len(result.evaluations),
                'changed': changed,
            }
            self._write(path, evaluator.model, result, summary, time.monotonic() - began)
            changes = ', '.join(f'{slot} {old} → {new}' for slot, (old, new) in changed.items()) or 'no slot'
            runner.logger.info(
                f'Selection by {evaluator.metric} in the supernet, {len(result.evaluations)} evaluations: '
                f'{result.before:.4g} → {result.after:.4g}, changed: {changes}. {path} now holds the selected '
                'architecture; selection.json beside it says what was measured.'
            )

    def _write(
        self,
        path: Path,
        model: BaseModel,
        result: Descent,
        summary: dict[str, Any],
        seconds: float,
    ) -> None:
        from ruas_mm.visualization.architecture import draw_architecture  # matplotlib takes long to import

        content = {**summary, 'options': asdict(self), 'seconds': round(seconds, 1), **asdict(result)}
        atomic_write(path.with_name('selection.json'), json.dumps(_finite(content), indent=2) + '\n')
        genotype = Genotype.load(path)
        operations = {**genotype.slots, **result.selected}
        genotype = replace(
            genotype,
            slots=operations,
            undecided={
                slot: why for slot, why in genotype.undecided.items() if operations[slot] == genotype.slots[slot]
            },
            origin={**genotype.origin, 'selection': _finite(summary)},
        )
        genotype.save(path)
        draw_architecture(genotype, slot_edges(model), path.with_name('architecture.png'))


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by None, in nested containers."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
