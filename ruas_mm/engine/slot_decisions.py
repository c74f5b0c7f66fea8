"""What a search may claim of each slot: decided, undecided, or dead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ruas_mm.engine.slot_statistics import SlotStatistics
from ruas_mm.search import Genotype, GenotypeLike, SearchSlots

DECIDED, UNDECIDED, DEAD = 'decided', 'undecided', 'dead'

# A slot whose log-probabilities are this near to where they began has the choice of its random start. In the searches
# of METHOD §11 slots without a gradient stayed below 0.01, and the others moved by about 1.
DEAD_TRAVEL = 0.1
# Adam's eps: it does not bring a smaller gradient to the size of its learning rate.
DEAD_GRADIENT = 1e-8
# The margin must be this many standard errors wide: 5 % for the best of ten candidates against any other, one-sided
# and with Bonferroni's correction, is 2.54.
LEAST_Z = 2.5
# With fewer samples the standard error is itself too uncertain for that.
LEAST_STEPS = 10


@dataclass(frozen=True)
class SlotDecision:
    """What is known of one slot.

    Attributes:
        status (str): ``decided``, ``undecided`` or ``dead``.
        choice (str): The operation that the genotype takes.
        best (str): The most probable candidate.
        runner_up (str): The next one; the same as ``best`` if there is no other.
        probability (float): Probability of ``best`` at temperature 1.
        margin (float): Difference of the log-probabilities of ``best`` and ``runner_up``.
        travel (float): How far a log-probability is, at most, from the first record.
        z (float, optional): Mean advantage of ``best`` over ``against`` by the gradients, in standard errors: negative
            where they favoured it. None before the second step.
        against (str): What ``best`` is compared with: the fallback's operation, or the runner-up.
        steps (int): Architecture steps.
        reason (str): Why the slot is not decided; empty if it is.
    """

    status: str
    choice: str
    best: str
    runner_up: str
    probability: float
    margin: float
    travel: float
    z: float | None
    against: str
    steps: int
    reason: str = ''

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes for a JSON file."""
        return asdict(self)


def load_fallback(fallback: GenotypeLike, slots: Sequence[SearchSlots]) -> dict[str, str]:
    """Read the operations that slots without a decision take.

    Args:
        fallback (Genotype | Mapping | str | Path, optional): A genotype by value, file or shipped name, which need not
            name all slots; None for none.
        slots (Sequence[SearchSlots]): The searchable slots.

    Returns:
        dict[str, str]: Operation by slot, for the slots that it names.

    Raises:
        ValueError: If it names no slot of the model, a slot that one of its modules does not have, or an operation of
            another space.
        FileNotFoundError: If it is neither a file nor a shipped name.
    """
    if fallback is None:
        return {}
    given = Genotype.load(fallback).slots
    found: dict[str, str] = {}
    for group in slots:
        mine = {slot: operation for slot, operation in given.items() if slot.startswith(f'{group.prefix}.')}
        for slot, operation in mine.items():
            if slot not in group.names:
                raise ValueError(f'The fallback names slot {slot!r}, but {group.prefix} has {", ".join(group.names)}.')
            if operation not in group.candidates:
                raise ValueError(
                    f'The fallback of slot {slot!r} is {operation!r}, which is not in its space: '
                    f'{", ".join(group.candidates)}.'
                )
        found |= mine
    if not found:
        raise ValueError(
            f'The fallback names no searchable slot of the model; it names {", ".join(list(given)[:3])}, the model has '
            f'{", ".join(group.prefix for group in slots)}.'
        )
    return found


def decide(
    slots: Iterable[SearchSlots],
    statistics: SlotStatistics,
    first: Mapping[str, Mapping[str, float]],
    fallback: Mapping[str, str],
) -> dict[str, SlotDecision]:
    """Classify the slots.

    A slot is ``dead`` if its parameters never had a gradient above 1e-8, or its log-probabilities are within 0.1 of the
    first record: its most probable candidate is that of its random start. It is ``undecided`` if it took fewer than 10
    steps, or the gradients did not favour the most probable candidate over the alternative by 2.5 standard errors. The
    alternative is the fallback's operation, or the runner-up where there is none or it is the most probable candidate
    itself. A slot that is not decided takes the operation of the fallback, if that names it.

    Args:
        slots (Iterable[SearchSlots]): The searchable slots.
        statistics (SlotStatistics): Of the architecture steps so far.
        first (Mapping[str, Mapping[str, float]]): Probabilities of the first record, by slot and candidate.
        fallback (Mapping[str, str]): Operation by slot; see :func:`load_fallback`.

    Returns:
        dict[str, SlotDecision]: By slot, in their order.
    """
    decisions = {}
    for group in slots:
        rows = group.alphas.detach().double().log_softmax(dim=-1).tolist()
        for slot, row in zip(group.names, rows, strict=True):
            now = dict(zip(group.candidates, row, strict=True))
            decisions[slot] = _decide(slot, now, first[slot], statistics, fallback.get(slot))
    return decisions


def _decide(
    slot: str,
    now: Mapping[str, float],
    first: Mapping[str, float],
    statistics: SlotStatistics,
    fallback: str | None,
) -> SlotDecision:
    best, *others = sorted(now, key=now.get, reverse=True)
    runner_up = others[0] if others else best
    against = runner_up if fallback in (None, best) else fallback
    tiny = 1e-300  # probabilities that are 0 in float64
    travel = max(abs(value - math.log(max(first[name], tiny))) for name, value in now.items())
    steps, z = statistics.steps(slot), statistics.z(slot, best, against)
    status = DEAD
    if not steps and travel < DEAD_TRAVEL:
        reason = 'Its architecture has not taken a step.'
    elif steps and statistics.largest_gradient(slot) <= DEAD_GRADIENT:
        reason = f'Its architecture never had a gradient above {DEAD_GRADIENT:g}, so {best} is its random start.'
    elif travel < DEAD_TRAVEL:
        reason = (
            f'Its log-probabilities moved by at most {travel:.2g}, less than {DEAD_TRAVEL:g}, so {best} is its '
            'random start.'
        )
    elif steps < LEAST_STEPS:
        status, reason = UNDECIDED, f'{steps} architecture steps are too few to tell a margin from noise.'
    elif z > -LEAST_Z:
        status = UNDECIDED
        reason = f'The gradients favoured {best} over {against} by {-z:.1f} standard errors, less than {LEAST_Z:g}.'
    else:
        status, reason = DECIDED, ''
    choice = best if status == DECIDED or fallback is None else fallback
    probability, margin = math.exp(now[best]), now[best] - now[runner_up]
    return SlotDecision(status, choice, best, runner_up, probability, margin, travel, z, against, steps, reason)


def merge_replicas(
    decisions: Mapping[str, SlotDecision],
    replicas: Sequence[Mapping[str, str]],
    fallback: Mapping[str, str],
) -> dict[str, SlotDecision]:
    """Make the slots undecided on which independent searches disagree.

    Args:
        decisions (Mapping[str, SlotDecision]): Those of the first search.
        replicas (Sequence[Mapping[str, str]]): The most probable candidate of each slot in the other searches.
        fallback (Mapping[str, str]): Operation by slot for those that are not decided.

    Returns:
        dict[str, SlotDecision]: The decisions of all searches together.
    """
    merged = {}
    for slot, decision in decisions.items():
        found = list(dict.fromkeys([decision.best, *(best[slot] for best in replicas)]))
        if len(found) > 1 and decision.status != DEAD:
            choice, reason = fallback.get(slot, decision.best), f'The replicas disagree: {", ".join(found)}.'
            decision = replace(decision, status=UNDECIDED, choice=choice, reason=reason)
        merged[slot] = decision
    return merged


def agreement(searches: Sequence[Mapping[str, str]], candidates: Mapping[str, int]) -> dict[str, float]:
    """Compare the agreement of independent searches with that of random choices.

    Args:
        searches (Sequence[Mapping[str, str]]): The most probable candidate of each slot, at least two searches.
        candidates (Mapping[str, int]): The number of candidates of each slot.

    Returns:
        dict[str, float]: ``slots``, their number; ``agreeing``, the number on which all searches agree; ``by_chance``,
        the expectation of that number if each search drew uniformly: the sum of 1 / K^(searches - 1).
    """
    return {
        'slots': len(candidates),
        'agreeing': sum(len({search[slot] for search in searches}) == 1 for slot in candidates),
        'by_chance': sum(count ** (1 - len(searches)) for count in candidates.values()),
    }


def table(decisions: Mapping[str, SlotDecision]) -> str:
    """Format the decisions for a log.

    Args:
        decisions (Mapping[str, SlotDecision]): By slot.

    Returns:
        str: A header and one line for each slot.
    """
    rows = [('slot', 'status', 'choice', 'best', 'p', 'runner-up', 'margin', 'travel', 'z')]
    for slot, d in decisions.items():
        z = '' if d.z is None else f'{d.z:.1f}'
        numbers = (f'{d.margin:.3f}', f'{d.travel:.3f}', z)
        rows.append((slot, d.status, d.choice, d.best, f'{d.probability:.3f}', d.runner_up, *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return '\n'.join(f'  {line.rstrip()}' for line in lines)
