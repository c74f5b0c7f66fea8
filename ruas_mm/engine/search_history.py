"""What a search believed at each interval, and whether it still changes its mind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ruas_mm.search import SearchSlots


def entropy(probabilities: Mapping[str, float]) -> float:
    """Return the entropy of one slot in nats: log(candidates) when undecided, 0 when decided.

    Args:
        probabilities (Mapping[str, float]): Probability of each candidate.

    Returns:
        float: The entropy.
    """
    return -sum(p * math.log(p) for p in probabilities.values() if p > 0)


class SearchHistory:
    """Records of all slots of a model, in the order of time.

    Attributes:
        records (list[dict]): Each holds ``iter`` and ``probabilities`` by slot and candidate.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def add(self, iteration: int, slots: Iterable[SearchSlots]) -> dict[str, dict[str, float]]:
        """Record what the slots believe.

        Args:
            iteration (int): Iterations done.
            slots (Iterable[SearchSlots]): All slots of the model.

        Returns:
            dict[str, dict[str, float]]: The probabilities, by slot and candidate.
        """
        probabilities: dict[str, dict[str, float]] = {}
        for group in slots:
            probabilities.update(group.probabilities())
        self.records.append({'iter': iteration, 'probabilities': probabilities})
        return probabilities

    def settled(self, slots: Iterable[str], intervals: int, tolerance: float, since: int = 0) -> bool:
        """Tell whether the last intervals changed nothing that matters.

        Args:
            slots (Iterable[str]): Names of the slots to look at.
            intervals (int): Number of intervals, at least 1.
            tolerance (float): Largest change of an architecture parameter over all of them, above 0. Parameters are
                compared as logarithms of probabilities, that is without the constant that the softmax ignores.
            since (int): Iteration before which records do not count.

        Returns:
            bool: Whether there are that many intervals, the genotype stayed the same throughout, and no parameter moved
            further than the tolerance from where it is now.
        """
        records = [record['probabilities'] for record in self.records if record['iter'] >= since]
        if len(records) <= intervals:
            return False
        *before, now = records[-intervals - 1 :]
        for slot in slots:
            choice = max(now[slot], key=now[slot].get)
            for then in (record[slot] for record in before):
                if max(then, key=then.get) != choice:
                    return False
                if any(_moved(then[name], p) >= tolerance for name, p in now[slot].items()):
                    return False
        return True


def _moved(then: float, now: float) -> float:
    """Return how far the logarithm of a probability has moved; 0 is the probability of a closed candidate."""
    if then == now:
        return 0.0
    return abs(math.log(now / then)) if then and now else math.inf
