"""The statistics against closed forms, enumeration and scipy."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip('scipy')

from scipy import stats

from ruas_mm.evaluation.search_statistics import (
    Noise,
    affordable,
    agreement,
    combine_slots,
    compare,
    poisson_binomial,
    rank_correlation,
    seed_noise,
    slot_statistics,
)


def test_equal_trials_are_binomial():
    assert poisson_binomial([0.3] * 7) == pytest.approx(stats.binom.pmf(range(8), 7, 0.3))


def test_unequal_trials_by_enumeration():
    chances = [0.1, 0.5, 0.9]
    expected = np.zeros(4)
    for outcome in itertools.product((0, 1), repeat=3):
        expected[sum(outcome)] += math.prod(p if hit else 1 - p for p, hit in zip(chances, outcome, strict=True))
    assert poisson_binomial(chances) == pytest.approx(expected)


def test_agreement_of_two_searches():
    """Two slots of 2 and 4 candidates: 1/2 and 1/4 by chance; both with 1/8, at least one with 5/8."""
    candidates = {'a': 2, 'b': 4}
    result = agreement([{'a': 'x', 'b': 'x'}, {'a': 'x', 'b': 'y'}], candidates)
    assert (result.agreed, result.slots) == (['a'], 2)
    assert result.expected == pytest.approx(3 / 4)
    assert result.sd == pytest.approx(math.sqrt(1 / 4 + 3 / 16))
    assert result.p_value == pytest.approx(5 / 8)
    assert agreement([{'a': 'x', 'b': 'x'}] * 2, candidates).p_value == pytest.approx(1 / 8)
    assert agreement([{'a': 'x', 'b': 'x'}] * 3, candidates).expected == pytest.approx(1 / 4 + 1 / 16)
    assert agreement([{'a': 'x', 'b': 'x'}, {'a': 'y', 'b': 'y'}], candidates).p_value == pytest.approx(1)


def test_rank_correlation():
    result = rank_correlation([1, 2, 3, 4], [1, 2, 4, 3])
    assert result['tau'] == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert result['p_value'] == pytest.approx(stats.kendalltau([1, 2, 3, 4], [1, 2, 4, 3]).pvalue)
    assert result['standard_error'] == pytest.approx(math.sqrt(2 * 13 / (9 * 4 * 3)))
    assert rank_correlation([1.0], [2.0])['tau'] is None
    assert rank_correlation([1.0, 1.0], [2.0, 3.0])['tau'] is None


def test_seed_noise_is_the_pooled_deviation():
    noise = seed_noise([[1.0, 3.0], [5.0], [2.0, 2.0, 5.0], []])
    assert noise.df == 3
    assert noise.sd == pytest.approx(math.sqrt((2 + 6) / 3))
    assert seed_noise([[1.0], [2.0]]) is None


def test_one_architecture_is_the_t_test():
    """With the noise of these two groups alone: Student's test with equal variances."""
    found, plain = [0.5, 0.7, 0.6], [0.4, 0.35]
    result = compare([found], plain, seed_noise([found, plain]))
    expected = stats.ttest_ind(found, plain)
    assert result.difference / result.standard_error == pytest.approx(expected.statistic)
    assert result.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert result.mean == pytest.approx(0.6)
    assert result.sd == pytest.approx(0.1)
    assert result.exceeds == (expected.statistic > 2)
    lower = compare([found], plain, seed_noise([found, plain]), greater=False)
    assert lower.difference == pytest.approx(-result.difference)
    assert lower.mean == result.mean


def test_several_architectures_with_no_seed_noise_to_speak_of_is_welchs_test():
    means, plain = [0.5, 0.9, 0.7], [0.40, 0.41, 0.42]
    noise = seed_noise([plain])
    result = compare([[mean] for mean in means], plain, noise)
    expected = stats.ttest_ind(means, plain, equal_var=False)
    assert result.difference / result.standard_error == pytest.approx(expected.statistic)
    assert result.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_architectures_that_agree_by_chance_keep_the_noise_of_their_seeds():
    result = compare([[0.4, 0.6], [0.5, 0.5]], [0.3, 0.3], Noise(0.1, 3))
    assert result.standard_error == pytest.approx(math.sqrt(0.01 / 4 + 0.01 / 2))
    assert result.exceeds


def test_single_figures_cannot_be_told_apart():
    result = compare([[0.9]], [0.1], seed_noise([[0.9], [0.1]]))
    assert (result.standard_error, result.interval, result.sd, result.exceeds) == (None, None, None, False)
    assert result.difference == pytest.approx(0.8)


def test_what_a_search_buys():
    assert [affordable(*seconds) for seconds in ((95, 46), (185, 46), (10, 46), (5, 0))] == [2, 4, 1, 1]


def test_slots_by_their_probabilities():
    first = {slot: {'x': 0.34, 'y': 0.33, 'z': 0.33} for slot in 'abc'}
    last = {
        'a': {'x': 0.341, 'y': 0.33, 'z': 0.329},
        'b': {'x': 0.2, 'y': 0.5, 'z': 0.3},
        'c': {'x': 0.7, 'y': 0.1, 'z': 0.2},
    }
    records = [{'iter': 0, 'probabilities': first}, {'iter': 9, 'probabilities': last}]
    slots = slot_statistics({'a': 'x', 'b': 'y', 'c': 'x'}, last, records)
    assert {slot: row['status'] for slot, row in slots.items()} == {'a': 'dead', 'b': 'undecided', 'c': 'decided'}
    assert slots['b']['margin'] == pytest.approx(math.log(5 / 3))
    assert slots['c']['travel'] == pytest.approx(math.log(0.33 / 0.1))
    assert (slots['c']['runner_up'], slots['c']['probability'], slots['c']['z']) == ('z', 0.7, None)
    unknown = slot_statistics({'a': 'x', 'b': 'y', 'c': 'x'}, last)
    assert (unknown['a']['status'], unknown['a']['travel']) == ('undecided', None)


def test_slots_of_several_searches():
    def row(status, choice, z):
        return dict(status=status, choice=choice, z=z, margin=1.0, travel=None)

    searches = [
        dict(a=row('dead', 'x', 0.1), b=row('decided', 'x', -4.0), c=row('decided', 'x', 3.0), d=row('dead', 'x', 0.2)),
        dict(a=row('dead', 'y', 0.0), b=row('decided', 'x', 3.0), c=row('decided', 'y', 9.0), d=row('decided', 'x', 5)),
    ]
    slots = combine_slots(searches)
    statuses = {slot: row['status'] for slot, row in slots.items()}
    assert statuses == {'a': 'dead', 'b': 'decided', 'c': 'undecided', 'd': 'undecided'}
    assert slots['b']['z'] == 3.0
    assert slots['c']['choices'] == ['x', 'y']
    assert slots['b']['travel'] is None
