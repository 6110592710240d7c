"""Section 6.3 of the specification: what a perfect sampler's votes look like."""

import numpy as np
import pytest
from scipy.stats import betabinom

from somite.metrics.calibration import bins, ece, fit_beta, sampler_floor, vote_ece, vote_histogram

SIZES = [1, 2, 5, 9, 10, 25, 100]
UNIFORM = [0.3333, 0.1667, 0.0857, 0.0505, 0.0455, 0.0193, 0.0050]
PEAKED = [0.0833, 0.0417, 0.0174, 0.0097, 0.0087, 0.0035, 0.0009]


@pytest.mark.parametrize(("members", "want"), list(zip(SIZES, UNIFORM, strict=True)))
def test_floor_for_uniform_p(members, want):
    assert sampler_floor(1, 1, members) == pytest.approx(want, abs=5.1e-5)


@pytest.mark.parametrize(("members", "want"), list(zip(SIZES, PEAKED, strict=True)))
def test_floor_for_peaked_p(members, want):
    assert sampler_floor(0.1, 0.1, members) == pytest.approx(want, abs=5.1e-5)


def test_floor_in_closed_form():
    # uniform p: |k/N - (1+k)/(N+2)| = |2k - N| / (N (N+2)), each k as likely; N = 2: (2 + 0 + 2) / (2 * 4 * 3)
    assert sampler_floor(1, 1, 2) == pytest.approx(1 / 6)
    # one member, any Beta: 2 a b / ((a+b) (a+b+1)) = 2 E[p (1-p)]
    assert sampler_floor(0.3, 1.7, 1) == pytest.approx(2 * 0.3 * 1.7 / (2 * 3))


@pytest.mark.parametrize(("alpha", "beta", "members"), [(1, 1, 5), (0.1, 0.1, 2), (0.3, 2.0, 9)])
def test_floor_is_the_ece_of_a_simulated_perfect_sampler(alpha, beta, members):
    rng = np.random.default_rng(0)
    p = rng.beta(alpha, beta, 400_000)
    votes = rng.binomial(members, p) / members
    truth = rng.random(p.size) < p
    assert ece(bins(votes, truth, members + 1)) == pytest.approx(sampler_floor(alpha, beta, members), abs=0.003)
    k = np.rint(votes * members).astype(int)
    counts = np.bincount(k, minlength=members + 1), np.bincount(k[truth], minlength=members + 1)
    assert vote_ece(*counts) == pytest.approx(ece(bins(votes, truth, members + 1)))


def test_floor_falls_with_members():
    floors = [sampler_floor(0.2, 0.9, n) for n in SIZES]
    assert floors == sorted(floors, reverse=True) and floors[-1] < floors[0] / 20


@pytest.mark.parametrize("wrong", [(0, 1, 5), (1, -1, 5), (1, 1, 0)])
def test_floor_refuses(wrong):
    with pytest.raises(ValueError, match="positive"):
        sampler_floor(*wrong)


def test_votes_are_counted():
    members = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[1, 1], [0, 1]]], dtype=bool)  # votes 3 2 0 1
    assert vote_histogram(members).tolist() == [1, 1, 1, 1]
    assert vote_histogram(members[:, :1]).tolist() == [0, 0, 1, 1]
    assert vote_histogram(np.zeros((2, 7), dtype=bool)).tolist() == [7, 0, 0]


def test_votes_refuse_soft_members():
    with pytest.raises(ValueError, match="boolean"):
        vote_histogram(np.ones((3, 4)) / 3)


@pytest.mark.parametrize("members", [2, 5, 25])
@pytest.mark.parametrize("truth", [(1, 1), (0.1, 0.1), (0.05, 1.3), (7.0, 3.0)])
def test_fit_recovers_the_parameters_from_exact_frequencies(members, truth):
    assert fit_beta(betabinom.pmf(np.arange(members + 1), members, *truth)) == pytest.approx(truth, rel=2e-3)


def test_fit_is_the_likeliest_on_a_sample():
    rng = np.random.default_rng(1)
    counts = np.bincount(rng.binomial(9, rng.beta(0.2, 0.6, 3000)), minlength=10)

    def likelihood(a, b):
        return counts @ betabinom.logpmf(np.arange(10), 9, a, b)

    alpha, beta = fit_beta(counts)
    assert (alpha, beta) == pytest.approx((0.2, 0.6), rel=0.15)
    best = likelihood(alpha, beta)
    for step in (0.98, 1.02):
        assert best > likelihood(alpha * step, beta)
        assert best > likelihood(alpha, beta * step)
        assert best > likelihood(alpha * step, beta * step)


@pytest.mark.parametrize("counts", [[100, 0, 0, 0], [0, 0, 0, 50], [60, 0, 0, 40]])
def test_unanimous_votes_have_no_floor(counts):
    """If all members always agree, p is 0 or 1 and a perfect sampler is calibrated with any number of members."""
    alpha, beta = fit_beta(counts)
    assert min(alpha, beta) >= 1e-4 * 0.999 and max(alpha, beta) <= 1e4 * 1.001
    assert sampler_floor(alpha, beta, 3) < 1e-3


def test_votes_as_spread_as_a_binomial_come_from_one_p():
    counts = np.array([1, 3, 3, 1])  # Binomial(3, 1/2)
    alpha, beta = fit_beta(counts)
    assert alpha / (alpha + beta) == pytest.approx(0.5) and alpha > 100


def test_fit_needs_two_members_and_pixels():
    with pytest.raises(ValueError, match="at least two members"):
        fit_beta([10, 5])
    for counts in ([0, 0, 0], [1, -1, 3], [1, np.nan, 3]):
        with pytest.raises(ValueError, match="non-negative"):
            fit_beta(counts)
