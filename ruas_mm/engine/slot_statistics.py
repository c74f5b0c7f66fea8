"""What the architecture gradients of a search say about the candidates of each slot, with the standard error of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ruas_mm.search import SearchSlots

# Below this probability a candidate's cost is underestimated: its gradient holds more rounding than signal.
_LEAST_PROBABILITY = 1e-6
# z values beyond it are reported as this: a standard error of 0 would otherwise make them infinite.
_LARGEST_Z = 1e6


class SlotStatistics:
    r"""Accumulates, over the architecture steps, what it costs to shift probability towards each candidate of a slot.

    With the output :math:`K = \sum_k p_k W_k`, :math:`p = \mathrm{softmax}(\alpha / \tau)` and
    :math:`g_k = \langle \partial L / \partial K, W_k \rangle`, the gradient is
    :math:`\partial L / \partial \alpha_k = p_k (g_k - \bar g) / \tau`, where :math:`\bar g = \sum_j p_j g_j`
    (METHOD §11). So

    .. math:: h_k = \tau \, (\partial L / \partial \alpha_k) / p_k = g_k - \bar g

    is the linear estimate of the change of the loss for each unit of probability that candidate k gains; differences of
    two candidates do not depend on :math:`\bar g`. Where the relaxation draws one candidate, h is the gradient itself.
    Count, mean and covariance of h are kept in float64 by Welford's algorithm. The steps are treated as independent
    samples; since the weights train meanwhile they are not quite, so that z is an upper estimate of the evidence.

    Args:
        slots (Sequence[SearchSlots]): The searchable slots of a model.
    """

    def __init__(self, slots: Sequence[SearchSlots]) -> None:
        self._groups = {group.prefix: _GroupStatistics(group) for group in slots}
        self._places = {name: (group.prefix, row) for group in slots for row, name in enumerate(group.names)}

    def add(self, slots: Sequence[SearchSlots], gradients: Sequence[Tensor]) -> None:
        """Take in one architecture step; to be called before the parameters change.

        Args:
            slots (Sequence[SearchSlots]): The slots that take the step.
            gradients (Sequence[Tensor]): The gradient of their ``alphas`` that the optimizer is about to apply, each of
                shape (slots, candidates), without weight decay.
        """
        for group, gradient in zip(slots, gradients, strict=True):
            self._groups[group.prefix].add(group, gradient)

    def steps(self, slot: str) -> int:
        """Return the number of architecture steps that a slot has taken."""
        return self._find(slot)[0].count

    def largest_gradient(self, slot: str) -> float:
        """Return the largest absolute value that the gradient of a slot's parameters ever had."""
        group, row = self._find(slot)
        return group.largest[row].item()

    def costs(self, slot: str) -> dict[str, float]:
        """Return the mean of h for each candidate of a slot, in units of the loss: negative is better than the mix."""
        group, row = self._find(slot)
        return dict(zip(group.candidates, group.mean[row].tolist(), strict=True))

    def z(self, slot: str, candidate: str, other: str) -> float | None:
        """Return the mean of ``h[candidate] - h[other]`` divided by its standard error.

        Args:
            slot (str): Name of the slot.
            candidate (str): One of its candidates.
            other (str): Another one.

        Returns:
            float | None: Negative where the gradients favoured ``candidate``; within ±1e6. None before the second step.
        """
        group, row = self._find(slot)
        if group.count < 2:
            return None
        a, b = group.candidates.index(candidate), group.candidates.index(other)
        difference = (group.mean[row, a] - group.mean[row, b]).item()
        squares = group.squares[row]
        variance = max((squares[a, a] + squares[b, b] - 2 * squares[a, b]).item(), 0.0) / (group.count - 1)
        error = math.sqrt(variance / group.count)
        if abs(difference) >= _LARGEST_Z * error:
            return math.copysign(_LARGEST_Z, difference) if difference else 0.0
        return difference / error

    def _find(self, slot: str) -> tuple[_GroupStatistics, int]:
        prefix, row = self._places[slot]
        return self._groups[prefix], row

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {prefix: group.state_dict() for prefix, group in self._groups.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            state (dict): What :meth:`state_dict` returned.
        """
        for prefix, group in self._groups.items():
            group.load_state_dict(state[prefix])


class _GroupStatistics:
    """Count, mean (slots, candidates) and centred squares (slots, candidates, candidates) of one module's slots."""

    def __init__(self, group: SearchSlots) -> None:
        rows, columns = len(group.names), len(group.candidates)
        self.candidates = group.candidates
        self.count = 0
        self.mean = torch.zeros(rows, columns, dtype=torch.float64)
        self.squares = torch.zeros(rows, columns, columns, dtype=torch.float64)
        self.largest = torch.zeros(rows, dtype=torch.float64)

    @torch.no_grad()
    def add(self, group: SearchSlots, gradient: Tensor) -> None:
        gradient = gradient.detach().double().cpu()
        if group.relaxation == 'softmax':
            p = (group.alphas.detach().double().cpu() / group.temperature).softmax(dim=-1)
            h = group.temperature * gradient / p.clamp_min(_LEAST_PROBABILITY)
        else:
            h = gradient  # of one drawn candidate: the cost of the others cannot be recovered from it
        self.count += 1
        before = h - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before[:, :, None] * (h - self.mean)[:, None, :]
        self.largest = torch.maximum(self.largest, gradient.abs().amax(dim=-1))

    def state_dict(self) -> dict[str, Any]:
        return {'count': self.count, 'mean': self.mean, 'squares': self.squares, 'largest': self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state['count']
        self.mean, self.squares, self.largest = (state[key].cpu() for key in ('mean', 'squares', 'largest'))
