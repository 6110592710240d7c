from dataclasses import FrozenInstanceError
from itertools import chain, combinations, product

import numpy as np
import pytest
from scipy import stats

from somite.metrics.calibration import Bins, bins, ece
from somite.metrics.intervals import holm, interval, paired, pooled_interval


def exact(values, groups, level):
    """Percentiles of the ratio over all equally likely draws of groups."""
    clusters = [np.asarray(values, dtype=float)[np.asarray(groups) == g] for g in sorted(set(groups))]
    draws = [np.concatenate(d).mean() for d in product(clusters, repeat=len(clusters))]
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")


@pytest.mark.parametrize("level", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("groups", [["b", "a", "c", "d"], ["a", "a", "b", "c"], ["c", "a", "a", "a"], [1, 2, 1, 2]])
def test_agrees_with_all_draws_of_few_groups(groups, level):
    values = [1.0, 2.0, 4.0, 8.5]
    got = interval(values, groups, level, resamples=40_000)
    assert (got.low, got.high) == pytest.approx(tuple(exact(values, groups, level)))
    assert got.mean == pytest.approx(15.5 / 4)
    assert (got.cases, got.groups) == (4, len(set(groups)))


def test_agrees_with_scipy_when_each_case_is_a_group():
    values = np.random.default_rng(0).gamma(2, size=40)
    want = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    got = interval(values, np.arange(40), resamples=20_000)
    assert (got.low, got.high) == pytest.approx(tuple(want), abs=0.02)
    assert got.high - got.low > 0.5


def test_interval_of_alike_cases_covers_and_the_naive_one_does_not():
    """Patients of 1 to 6 alike cases; the true mean is 0."""
    rng = np.random.default_rng(0)
    hits, naive = [], []
    for _ in range(300):
        groups = np.repeat(np.arange(40), rng.integers(1, 7, 40))
        values = rng.standard_normal(40)[groups] + 0.3 * rng.standard_normal(groups.size)
        for found, labels in ((hits, groups), (naive, np.arange(groups.size))):
            result = interval(values, labels, resamples=300)
            found.append(result.low <= 0 <= result.high)
    assert 0.88 < np.mean(hits) < 0.985
    assert np.mean(naive) < 0.8


def test_is_deterministic_in_the_seed_and_blind_to_the_order_of_rows():
    rng = np.random.default_rng(0)
    values, groups = rng.random(30), rng.integers(0, 12, 30)
    first = interval(values, groups)
    assert first == interval(values, groups)
    assert first.low != interval(values, groups, seed=1).low
    order = rng.permutation(30)
    again = interval(values[order], groups[order])
    assert (again.low, again.high) == pytest.approx((first.low, first.high))


def test_one_group_has_no_interval():
    result = interval([1.0, 3.0], ["p", "p"])
    assert (result.mean, result.cases, result.groups) == (2, 2, 1)
    assert np.isnan(result.low) and np.isnan(result.high)
    with pytest.raises(FrozenInstanceError):
        result.mean = 0


def test_equal_values_have_an_interval_of_no_width():
    result = interval(np.full(9, 0.25), np.arange(9) // 2)
    assert (result.mean, result.low, result.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "groups", "options", "word"),
    [
        ([1.0, np.nan], [0, 1], {}, "NaN"),
        ([], [], {}, "0 cases"),
        ([1.0, 2.0], [0], {}, "one group for each"),
        ([[1.0], [2.0]], [0, 1], {}, "one number per case"),
        ([1.0, 2.0], [0, 1], {"level": 1.0}, "level"),
        ([1.0, 2.0], [0, 1], {"resamples": 0}, "resamples"),
    ],
)
def test_interval_refuses(values, groups, options, word):
    with pytest.raises(ValueError, match=word):
        interval(values, groups, **options)


def test_pooled_interval_of_a_ratio_is_the_interval_of_the_mean():
    rng = np.random.default_rng(0)
    values, groups = rng.random(25), rng.integers(0, 9, 25)
    parts = np.stack((values, np.ones(25)), axis=1)
    want = interval(values, groups, seed=3)
    got = pooled_interval(parts, groups, lambda total: total[0] / total[1], seed=3)
    assert (got.mean, got.low, got.high) == pytest.approx((want.mean, want.low, want.high))
    assert (got.cases, got.groups) == (want.cases, want.groups)


def test_pooled_interval_of_ece_against_binning_all_draws():
    rng = np.random.default_rng(0)
    p = rng.random((4, 30))
    y = rng.random((4, 30)) < p ** np.array([[0.3], [1.0], [2.0], [4.0]])
    groups = ["a", "a", "b", "c"]
    parts = [bins(p[i], y[i]).array() for i in range(4)]
    got = pooled_interval(parts, groups, lambda total: ece(Bins(*total)), level=0.8, resamples=20_000)
    assert got.mean == pytest.approx(ece(bins(p, y)))
    clusters = ([0, 1], [2], [3])
    rows = [list(chain(*drawn)) for drawn in product(clusters, repeat=3)]
    draws = [ece(bins(p[r], y[r])) for r in rows]
    want = np.quantile(draws, [0.1, 0.9], method="inverted_cdf")
    assert (got.low, got.high) == pytest.approx(tuple(want))


def test_pooled_interval_refuses_an_undefined_statistic():
    with pytest.raises(ValueError, match="NaN"):
        pooled_interval([[1.0], [2.0]], [0, 1], lambda total: np.nan if total[0] == 2 else total[0])


def sign_flips(values):
    """The two-sided signed-rank p-value by its definition, over all assignments of signs."""
    ranks = stats.rankdata(np.abs(values))
    observed = abs(ranks @ np.sign(values))
    totals = [abs(ranks @ np.array(signs)) for signs in product((-1, 1), repeat=len(values))]
    return np.mean(np.array(totals) >= observed - 1e-9)


def test_paired_p_value_is_over_groups():
    # five groups of 1 to 3 cases with mean differences 1, 2, 3, -4, 5
    groups = ["a", "b", "b", "c", "c", "c", "d", "e"]
    difference = np.array([1.0, 1.5, 2.5, 3.0, 2.0, 4.0, -4.0, 5.0])
    b = np.random.default_rng(0).random(8)
    got = paired(b + difference, b, groups)
    assert got.p_value == pytest.approx(sign_flips([1, 2, 3, -4, 5]))
    assert got.difference.mean == pytest.approx(15 / 8)
    want = interval(difference, groups)
    assert (got.difference.low, got.difference.high) == pytest.approx((want.low, want.high))


def test_paired_by_hand_and_reversed():
    b = np.zeros(6)
    a = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert paired(a, b, range(6)).p_value == pytest.approx(2 / 2**6)  # only all plus or all minus are as extreme
    back = paired(b, a, range(6))
    assert back.p_value == pytest.approx(2 / 2**6)
    assert back.difference.mean == pytest.approx(-0.35)
    assert back.difference.high < 0


def test_paired_without_a_difference():
    a = np.random.default_rng(0).random(7)
    got = paired(a, a, range(7))
    assert got.p_value == 1
    assert (got.difference.mean, got.difference.low, got.difference.high) == (0, 0, 0)
    assert paired([0.3, 0.1], [0.1, 0.3], ["p", "p"]).p_value == 1  # opposite cases of one patient


def test_rounding_neither_makes_a_difference_nor_breaks_a_tie():
    assert 0.1 + 0.2 != 0.3 and 0.3 - 0.2 != 0.2 - 0.1  # the traps
    assert paired([0.1 + 0.2, 0.1 + 0.2, 0.5], [0.3, 0.3, 0.5], range(3)).p_value == 1
    tied = paired([0.3, 0.1, 0.8, 0.9, 0.5], [0.2, 0.2, 0.3, 0.2, 0.1], range(5))
    assert tied.p_value == pytest.approx(sign_flips([1, -1, 5, 7, 4]))


def test_paired_refuses_other_cases():
    with pytest.raises(ValueError, match="same cases"):
        paired([1.0, 2.0], [1.0], [0, 1])


def closed_testing(p):
    """Holm's procedure as the closure of Bonferroni tests (Marcus et al. 1976): max over all subsets with i."""
    subsets = [s for size in range(1, len(p) + 1) for s in combinations(range(len(p)), size)]
    return [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02]) == [0.02] and holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closure_of_bonferroni(seed):
    p = np.round(np.random.default_rng(seed).random(6) ** 3, 2)  # with ties
    assert holm(p) == pytest.approx(closed_testing(p.tolist()))


@pytest.mark.parametrize("p", [[0.5, np.nan], [1.1], [-0.1], [[0.5]]])
def test_holm_refuses(p):
    with pytest.raises(ValueError, match="p_values"):
        holm(p)
