"""What an architecture costs to run: expected over a search's probabilities, and of the derived architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from ruas_mm.engine.objective import objective, undisturbed
from ruas_mm.search import OPERATIONS, MixedOp, Phase, SearchSlots, searchable_slots

TYPES = ('macs', 'params', 'latency')
_MEASURED_FOR = 0.05  # seconds per candidate and shape


class ArchitectureCost:
    """Adds weight * expected cost / reference to the objective of the architecture parameters.

    The expected cost is the sum over slots and candidates of p_k c_k, with the probabilities p of
    :meth:`ruas_mm.search.SearchSlots.distribution`. The costs c_k are per image, at the size and number of channels
    that the slot sees in the search; the places that share a slot, such as the stages of the scene module, are added
    up. Only candidates count: what the architecture does not change is left out.

    Args:
        type (str): ``macs``: multiply-accumulate operations of the convolution, as mmengine's
            ``get_model_complexity_info`` counts them. ``params``: weights and biases. ``latency``: milliseconds of one
            image, the median of repeated runs of the candidate by itself on the device of the model.
        weight (float): Weight of the term, at least 0.
        reference (float, optional): Cost that counts as 1, above 0, in the unit of ``type``. Defaults to that of the
            most expensive architecture.

    Attributes:
        table (dict[str, list[float]]): Cost of each candidate by slot; empty until :meth:`measure`.

    Raises:
        ValueError: If an option has no such value.
    """

    def __init__(self, type: str, weight: float, reference: float | None = None) -> None:
        if type not in TYPES:
            raise ValueError(f'type of ArchitectureCost must be one of {", ".join(TYPES)}, got {type!r}.')
        if not _is_number(weight) or not 0 <= weight < math.inf:
            raise ValueError(f'weight of ArchitectureCost must be a number of at least 0, got {weight!r}.')
        if reference is not None and not (_is_number(reference) and 0 < reference < math.inf):
            raise ValueError(f'reference of ArchitectureCost must be a number above 0 or None, got {reference!r}.')
        self.type = type
        self.weight = weight
        self.reference = reference
        self.table: dict[str, list[float]] = {}

    def measure(self, model: BaseModel, batch: Any) -> None:
        """Find the costs by one forward pass, whose slots mix their candidates one by one.

        Buffers of the model, its phase and the random numbers are left as they were. All processes get the costs of
        the first one.

        Args:
            model (BaseModel): The model, unwrapped and in training mode.
            batch (Any): What a data loader yields, with ``inputs``.

        Raises:
            ValueError: If no candidate that costs anything runs.
        """
        calls = _record_calls(model, batch)
        slots = searchable_slots(model)
        table = {name: [0.0] * len(group.candidates) for group in slots for name in group.names}
        if get_rank() == 0:
            self._add_up(calls, len(batch['inputs']), table)
        shared = [table]
        broadcast_object_list(shared)
        self.table = shared[0]
        highest = sum(max(row) for row in self.table.values())
        if not highest:
            raise ValueError(
                f'The cost of the architecture cannot be measured: no slot of {type(model).__name__} ran a candidate.'
            )
        if self.reference is None:
            self.reference = highest

    def _add_up(self, calls: Sequence[_Call], images: int, table: dict[str, list[float]]) -> None:
        counted: set[int] = set()  # mixed operations whose parameters have been counted
        latencies: dict[tuple, float] = {}
        for operation, x, batch_size in calls:
            share = batch_size / images
            if self.type == 'params':
                share = 0 if id(operation) in counted else 1
                counted.add(id(operation))
            row = table[operation.slot]
            for index, name in enumerate(operation.candidates):
                candidate = operation.operations[index]
                if self.type == 'params':
                    cost = sum(parameter.numel() for parameter in candidate.parameters())
                elif self.type == 'macs':
                    cost = _macs(name, operation, x)
                else:
                    place = (name, operation.out_channels, operation.stride, x.shape, x.stride())
                    if place not in latencies:
                        latencies[place] = _latency(candidate, x)
                    cost = latencies[place]
                row[index] += share * cost

    def expected(self, slots: Sequence[SearchSlots]) -> Tensor:
        """Return the expected cost of some slots, with a gradient to their architecture parameters.

        Args:
            slots (Sequence[SearchSlots]): At least one group of slots.

        Returns:
            Tensor: A scalar in the unit of the type.
        """
        return torch.stack([(group.distribution() * self._rows(group)).sum() for group in slots]).sum()

    @torch.no_grad()
    def derived(self, slots: Sequence[SearchSlots]) -> float:
        """Return the cost of the architecture that would be derived now.

        Args:
            slots (Sequence[SearchSlots]): The groups of slots to count.

        Returns:
            float: The cost in the unit of the type.
        """
        return sum(
            self.table[name][group.candidates.index(choice)]
            for group in slots
            for name, choice in group.derive().items()
        )

    def gradients(self, slots: Sequence[SearchSlots]) -> list[Tensor]:
        """Return the gradient of the term that is added to the objective.

        Args:
            slots (Sequence[SearchSlots]): At least one group of slots.

        Returns:
            list[Tensor]: One gradient per group, with respect to its architecture parameters.
        """
        found = []
        for group in slots:
            with torch.enable_grad():
                alphas = group.alphas.detach().requires_grad_()
                term = (group.distribution(alphas) * self._rows(group)).sum() * (self.weight / self.reference)
            found += torch.autograd.grad(term, alphas)
        return found

    def _rows(self, group: SearchSlots) -> Tensor:
        return group.alphas.new_tensor([self.table[name] for name in group.names])

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured."""
        return {'table': self.table, 'reference': self.reference}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was measured.

        Args:
            state (dict): What :meth:`state_dict` returned.
        """
        self.table, self.reference = state['table'], state['reference']


class _Call(NamedTuple):
    """One run of a mixed operation: on one image like ``x``, times the size of the batch."""

    operation: MixedOp
    x: Tensor
    batch_size: int


@torch.no_grad()
def _record_calls(model: BaseModel, batch: Any) -> list[_Call]:
    """Run the model once and return what each mixed operation of a slot was given."""
    calls: list[_Call] = []

    def record(operation: nn.Module, arguments: tuple) -> None:
        calls.append(_Call(operation, arguments[0][:1].clone(), len(arguments[0])))

    operations = [part for part in model.modules() if isinstance(part, MixedOp) and part.slot]
    slots = searchable_slots(model)
    forms, relaxations = [part.merged for part in operations], [group.relaxation for group in slots]
    hooks = [part.register_forward_pre_hook(record) for part in operations]
    try:
        # In this form no mixed operation is stacked with another or replaced by a drawn candidate: all of them run.
        for part in operations:
            part.merged = False
        for group in slots:
            group.relaxation = 'softmax'
        with undisturbed(model):
            objective(model, batch, Phase.JOINT)()
    finally:
        for hook in hooks:
            hook.remove()
        for part, merged in zip(operations, forms, strict=True):
            part.merged = merged
        for group, relaxation in zip(slots, relaxations, strict=True):
            group.relaxation = relaxation
    return calls


def _macs(name: str, operation: MixedOp, x: Tensor) -> int:
    height, width = (math.ceil(side / operation.stride) for side in x.shape[-2:])
    return OPERATIONS[name].kernel ** 2 * operation.in_channels * operation.out_channels * height * width


def _latency(candidate: nn.Module, x: Tensor) -> float:
    timer = Timer('run(x)', globals={'run': candidate, 'x': x}, num_threads=torch.get_num_threads())
    with torch.no_grad():
        return 1e3 * timer.blocked_autorange(min_run_time=_MEASURED_FOR).median


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
