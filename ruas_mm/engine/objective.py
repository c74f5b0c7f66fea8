"""Losses of a model as functions of its parameters, for the steps that a search takes beside training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from ruas_mm.engine.random_state import get_random_state, preserved_random_state, set_random_state
from ruas_mm.search import Phase


def unwrapped(runner: Runner) -> BaseModel:
    """Return the model of a run without the wrapper that several processes put around it.

    Args:
        runner (Runner): The run.
    """
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def set_phase(model: BaseModel, phase: Phase) -> None:
    """Tell a model which losses to return; one without phases has those of ``JOINT`` alone.

    Args:
        model (BaseModel): The model, unwrapped.
        phase (Phase): What to return from now on.
    """
    if hasattr(model, 'search_phase'):
        model.search_phase = phase


def objective(
    model: BaseModel,
    batch: Any,
    phase: Phase,
    values: dict[str, Tensor] | None = None,
    scene_moves: bool = True,
) -> Callable[[], Tensor]:
    """Return the loss of a phase on a batch as a function of the parameters' current values.

    Every call draws the same random numbers, and leaves the batch as it is.

    Args:
        model (BaseModel): The model, unwrapped and in training mode.
        batch (Any): What its data loader yields.
        phase (Phase): Which losses to sum up.
        values (dict, optional): Where each call leaves the loss, detached, under the phase's name.
        scene_moves (bool): Whether the parameters of the scene module change between the calls. If not, a task phase
            computes its features once. Defaults to True.

    Returns:
        Callable[[], Tensor]: The loss, a scalar.
    """

    def prepare() -> Any:
        return model.data_preprocessor(copy.deepcopy(batch), True)

    set_phase(model, phase)
    # Nothing else that varies in a task phase comes before the task module.
    prepared = prepare() if phase is Phase.TASK and not scene_moves else None
    state = get_random_state()

    def loss() -> Tensor:
        set_random_state(state)
        set_phase(model, phase)
        data = prepare() if prepared is None else copy.deepcopy(prepared)
        value, _ = model.parse_losses(model._run_forward(data, mode='loss'))
        if values is not None:
            values[phase.value] = value.detach()
        return value

    return loss


@contextmanager
def undisturbed(model: BaseModel) -> Iterator[None]:
    """Leave a model's buffers (normalisation statistics), its phase and all random numbers as they were.

    Args:
        model (BaseModel): The model, unwrapped.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    phase = getattr(model, 'search_phase', Phase.JOINT)
    try:
        with preserved_random_state():
            yield
    finally:
        set_phase(model, phase)
        for name, buffer in model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
