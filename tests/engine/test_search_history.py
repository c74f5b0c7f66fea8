"""When a search has settled."""

import math

import pytest
import torch

from ruas_mm.engine.search_history import SearchHistory, entropy
from ruas_mm.search import SearchSlots


def history(*rows, first=0):
    """Records of one slot with these architecture parameters."""
    slots = SearchSlots('scene', ['a'], ['skip', 'conv_1x1', 'conv_3x3'])
    kept = SearchHistory()
    for index, row in enumerate(rows):
        slots.alphas.data = torch.tensor([row])
        kept.add(first + 10 * index, [slots])
    return kept


def test_entropy_is_between_decided_and_undecided():
    assert entropy({'a': 1.0, 'b': 0.0}) == 0
    assert entropy({'a': 0.25, 'b': 0.25, 'c': 0.25, 'd': 0.25}) == pytest.approx(math.log(4))


def test_it_settles_after_enough_intervals_without_change():
    rows = [[0.0, 1.0, 0.0]] * 3
    assert history(*rows).settled(['scene.a'], 2, 1e-6)
    assert not history(*rows).settled(['scene.a'], 3, 1e-6)  # three records are two intervals


def test_movement_counts_over_all_the_intervals_together():
    slow = [[0.0, 1.0 + 0.1 * index, 0.0] for index in range(4)]
    assert history(*slow).settled(['scene.a'], 1, 0.1)
    assert not history(*slow).settled(['scene.a'], 3, 0.1)


def test_a_common_shift_is_no_movement():
    assert history([0.0, 1.0, 0.0], [5.0, 6.0, 5.0]).settled(['scene.a'], 1, 1e-4)


def test_a_new_genotype_is_a_change_however_small():
    assert not history([0.0, 1e-4, 0.0], [1e-4, 0.0, 0.0]).settled(['scene.a'], 1, 1.0)


def test_records_before_the_search_of_a_module_do_not_count():
    kept = history(*[[0.0, 1.0, 0.0]] * 4)
    assert kept.settled(['scene.a'], 2, 1e-6, since=10)
    assert not kept.settled(['scene.a'], 2, 1e-6, since=11)
