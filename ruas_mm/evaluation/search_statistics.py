"""Statistics of how far an architecture search can be trusted: agreement, ranking and comparisons (needs scipy)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

# A slot whose log-probabilities never moved further than this had no gradient to speak of: in searches of the demo
# such slots stay below 0.01, while the others move by about 1.
DEAD_TRAVEL = 0.05
# Where no test statistic is at hand, a slot is decided if its choice is at least twice as probable as the runner-up.
DECIDED_MARGIN = math.log(2)


@dataclass(frozen=True)
class Agreement:
    """How many slots independent searches agree on.

    Attributes:
        agreed (list[str]): Slots for which all searches chose the same operation.
        slots (int): Number of slots.
        expected (float): Expected number of such slots if every search chose at random.
        sd (float): Standard deviation of that number.
        p_value (float): Probability of at least as many by chance.
    """

    agreed: list[str]
    slots: int
    expected: float
    sd: float
    p_value: float


def poisson_binomial(probabilities: Sequence[float]) -> np.ndarray:
    """Return the distribution of the number of successes of independent trials.

    Args:
        probabilities (Sequence[float]): Probability of each trial's success.

    Returns:
        np.ndarray: Probability of 0, 1, …, n successes, exactly.
    """
    distribution = np.ones(1)
    for p in probabilities:
        distribution = np.convolve(distribution, [1 - p, p])
    return distribution


def agreement(architectures: Sequence[Mapping[str, str]], candidates: Mapping[str, int]) -> Agreement:
    """Compare the architectures of independent searches with uniform random choices.

    Args:
        architectures (Sequence[Mapping[str, str]]): Operation of each slot, at least two of them.
        candidates (Mapping[str, int]): Number of candidates of each slot to compare.

    Returns:
        Agreement: The agreement of all of them.
    """
    agreed = [slot for slot in candidates if len({architecture[slot] for architecture in architectures}) == 1]
    chances = [count ** (1 - len(architectures)) for count in candidates.values()]
    tail = float(poisson_binomial(chances)[len(agreed) :].sum())
    sd = math.sqrt(sum(p * (1 - p) for p in chances))
    return Agreement(agreed, len(candidates), sum(chances), sd, min(tail, 1.0))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> dict[str, float | int | None]:
    """Return Kendall's tau of two measurements of the same things.

    Args:
        first (Sequence[float]): One measurement.
        second (Sequence[float]): The other.

    Returns:
        dict[str, float | int | None]: ``tau``, its ``p_value`` (both None for fewer than two things, or if all are
            equal), the ``standard_error`` of tau where there is no correlation, and the ``count`` of things.
    """
    n = len(first)
    if n < 2:
        return {'tau': None, 'p_value': None, 'standard_error': None, 'count': n}
    result = stats.kendalltau(first, second)
    known = math.isfinite(result.statistic)
    return {
        'tau': float(result.statistic) if known else None,
        'p_value': float(result.pvalue) if known else None,
        'standard_error': math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))),
        'count': n,
    }


@dataclass(frozen=True)
class Noise:
    """Spread between trainings of one architecture that differ in the seed.

    Attributes:
        sd (float): Standard deviation, pooled over architectures.
        df (int): Its degrees of freedom, at least 1.
    """

    sd: float
    df: int


def seed_noise(groups: Sequence[Sequence[float]]) -> Noise | None:
    """Pool the spread of several architectures, as the analysis of variance does.

    Args:
        groups (Sequence[Sequence[float]]): Figures of each architecture, one per seed.

    Returns:
        Noise | None: The spread; None if no architecture was trained more than once.
    """
    df = sum(len(group) - 1 for group in groups if group)
    if not df:
        return None
    squares = sum(float(np.var(group)) * len(group) for group in groups if group)
    return Noise(math.sqrt(squares / df), df)


@dataclass(frozen=True)
class Difference:
    """A comparison with the plain architecture.

    Attributes:
        mean (float): Mean of the architectures' means.
        sd (float, optional): Standard deviation of those means, or of the seeds of a single architecture; None for a
            single figure.
        difference (float): Mean minus the plain architecture's mean; above 0 is better.
        standard_error (float, optional): Of the difference; None if no architecture was trained more than once.
        interval (tuple[float, float], optional): 95 % interval of the difference (Student's t).
    """

    mean: float
    sd: float | None
    difference: float
    standard_error: float | None
    interval: tuple[float, float] | None

    @property
    def exceeds(self) -> bool:
        """Whether the difference is above two standard errors."""
        return self.standard_error is not None and self.difference > 2 * self.standard_error


def compare(
    architectures: Sequence[Sequence[float]], plain: Sequence[float], noise: Noise | None, greater: bool = True
) -> Difference:
    """Compare architectures with the plain one.

    A single architecture has the noise of its seeds. The mean of several (those that independent searches found)
    has the spread between them, or the noise of their seeds if that is larger.

    Args:
        architectures (Sequence[Sequence[float]]): Figures of each architecture, one per seed.
        plain (Sequence[float]): Figures of the plain architecture.
        noise (Noise, optional): Spread between seeds, from :func:`seed_noise`.
        greater (bool): Whether a greater figure is better. Defaults to True.

    Returns:
        Difference: The comparison.
    """
    means = [float(np.mean(figures)) for figures in architectures]
    spread = means if len(means) > 1 else list(architectures[0])
    sd = float(np.std(spread, ddof=1)) if len(spread) > 1 else None
    mean = float(np.mean(means))
    difference = (mean - float(np.mean(plain))) * (1 if greater else -1)
    if noise is None:
        return Difference(mean, sd, difference, None, None)
    reference = noise.sd**2 / len(plain)
    seeds = noise.sd**2 * sum(1 / len(figures) for figures in architectures) / len(means) ** 2
    between = float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0
    variance = max(between, seeds) + reference
    df = float(noise.df)
    if between > seeds:  # Welch and Satterthwaite: two variances that were estimated apart
        df = variance**2 / (between**2 / (len(means) - 1) + reference**2 / noise.df)
    error = math.sqrt(variance)
    half = float(stats.t.ppf(0.975, df)) * error
    return Difference(mean, sd, difference, error, (difference - half, difference + half))


def affordable(search_seconds: float, training_seconds: float) -> int:
    """Return how many trainings cost as much as a search, at least 1."""
    return max(1, int(search_seconds / training_seconds)) if training_seconds > 0 else 1


# --- Slots ----------------------------------------------------------------------------------------------------------


def slot_statistics(
    architecture: Mapping[str, str],
    probabilities: Mapping[str, Mapping[str, float]],
    records: Sequence[Mapping[str, Any]] = (),
) -> dict[str, dict[str, Any]]:
    """Describe the slots of one search by its probabilities alone, where no test statistics were kept.

    Args:
        architecture (Mapping[str, str]): Operation of each slot.
        probabilities (Mapping[str, Mapping[str, float]]): Final probabilities by slot and candidate.
        records (Sequence[Mapping]): Earlier ones, as ``SearchHistory.records``, the first one first.

    Returns:
        dict[str, dict[str, Any]]: By slot: ``status`` (``dead``, ``undecided``, ``decided``), ``choice``,
            ``runner_up``, ``probability``, ``margin`` (difference of their log-probabilities), ``travel`` (largest
            movement of a log-probability since the first record, None without records) and ``z`` (None).
    """
    result = {}
    for slot, row in probabilities.items():
        choice = architecture[slot]
        runner_up = max((name for name in row if name != choice), key=row.get)
        margin = _log(row[choice]) - _log(row[runner_up])
        first = records[0]['probabilities'].get(slot) if records else None
        travel = max(abs(_log(row[name]) - _log(first[name])) for name in row) if first else None
        dead = travel is not None and travel < DEAD_TRAVEL
        status = 'dead' if dead else 'decided' if margin >= DECIDED_MARGIN else 'undecided'
        result[slot] = {
            'status': status,
            'choice': choice,
            'runner_up': runner_up,
            'probability': row[choice],
            'margin': margin,
            'travel': travel,
            'z': None,
        }
    return result


def _log(p: float) -> float:
    return math.log(max(p, 1e-300))


def combine_slots(searches: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Put what several searches say of each slot together.

    Args:
        searches (Sequence[Mapping]): For each search, its slots as :func:`slot_statistics` returns them.

    Returns:
        dict[str, dict[str, Any]]: By slot: ``status``: ``dead`` if no search moved it, ``undecided`` if one of them
            does not decide or they disagree, else ``decided``; the searches' ``choices`` and ``statuses``; and the
            smallest ``z``, ``margin`` and ``travel`` by size (None where unknown).
    """
    result = {}
    for slot in searches[0]:
        rows = [search[slot] for search in searches]
        choices, statuses = [row['choice'] for row in rows], [row['status'] for row in rows]
        if set(statuses) == {'dead'}:
            status = 'dead'
        else:
            status = 'decided' if set(statuses) == {'decided'} and len(set(choices)) == 1 else 'undecided'
        result[slot] = {'status': status, 'choices': choices, 'statuses': statuses}
        for key in ('z', 'margin', 'travel'):
            values = [row[key] for row in rows if row.get(key) is not None]
            result[slot][key] = min(values, key=abs) if values else None
    return result
