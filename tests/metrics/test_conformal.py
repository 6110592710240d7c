"""Guarantees, by closed forms and by many draws from distributions whose risk is known."""

from math import ceil, sqrt

import numpy as np
import pytest
from scipy import stats

from somite.metrics.conformal import accepted, controlled, grouped, least_controlled, least_tested, p_value, width

GRID = np.linspace(0, 1, 2001)


def test_a_group_counts_once_and_cases_without_a_loss_not_at_all():
    losses = np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, np.nan], [0.5, 0.25], [np.nan, np.nan]])
    assert grouped(losses, ["b", "b", "b", "a", "c"]).tolist() == [[0.5, 0.25], [0.5, 0.0]]


@pytest.mark.parametrize("n", [9, 20, 57])
@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_of_missing_or_not_it_is_the_order_statistic_of_split_conformal(n, alpha):
    scores = np.random.default_rng(n).random(n)
    settings = np.sort(scores)
    place = controlled((scores[:, None] > settings).astype(float), alpha)
    assert settings[place] == settings[ceil((n + 1) * (1 - alpha) - 1e-9) - 1]


def test_the_expected_risk_is_kept_and_no_more_given_away_than_one_patient_is_worth():
    """Losses are (u - setting) clipped at 0 with uniform u: the risk of a setting s is (1 - s)^2 / 2 exactly."""
    random, alpha, n = np.random.default_rng(0), 0.08, 40
    risks = []
    for _ in range(2000):
        place = controlled(np.clip(random.random(n)[:, None] - GRID, 0, 1), alpha)
        risks.append((1 - GRID[place]) ** 2 / 2)
    error = np.std(risks) / sqrt(len(risks))
    assert np.mean(risks) <= alpha + 2 * error
    assert np.mean(risks) >= alpha - 2 / (n + 1) - 2 * error  # proposition 1 of the paper: within 2 B / (n + 1)


def test_without_the_correction_it_would_not_be_kept():
    """Or the test above could not fail: the plain mean of few losses is below alpha more easily than their expectation."""
    random, alpha, n = np.random.default_rng(0), 0.1, 12
    plain, kept = [], []
    for _ in range(3000):
        u = random.random(n) < 0.5  # half of the patients lose nothing, whatever the setting
        losses = np.where(u[:, None], (random.random(n)[:, None] > GRID), 0.0)
        plain.append((1 - GRID[(losses.mean(0) <= alpha).argmax()]) / 2)
        kept.append((1 - GRID[controlled(losses, alpha)]) / 2)
    assert np.mean(plain) > alpha + 3 * np.std(plain) / sqrt(len(plain))
    assert np.mean(kept) <= alpha + 2 * np.std(kept) / sqrt(len(kept))


def test_losses_that_rise_promise_nothing():
    with pytest.raises(ValueError, match="rise"):
        controlled(np.array([[0.0, 0.5]]), 0.5)
    with pytest.raises(ValueError, match="span"):
        controlled(np.array([[2.0, 0.5]]), 0.5)
    with pytest.raises(ValueError, match="shape"):
        controlled(np.zeros((0, 3)), 0.5)


@pytest.mark.parametrize("n", [15, 60])
@pytest.mark.parametrize("alpha", [0.1, 0.4])
def test_a_p_value_is_seldom_small_where_the_risk_is_alpha(n, alpha):
    """Exactly, for losses of 0 and 1, of which the sum is binomial: P(p <= u) <= u for all u."""
    k = np.arange(n + 1)
    p = np.array([p_value(one / n, n, alpha) for one in k])
    mass = stats.binom.pmf(k, n, alpha)
    assert p[0] == pytest.approx((1 - alpha) ** n)
    for u in p:
        assert mass[p <= u].sum() <= u + 1e-12


def test_the_first_setting_that_is_not_rejected_ends_the_sequence():
    losses = np.array([[0.0, 0.0, 0.9, 0.0]] * 100)
    assert accepted(losses, 0.1, 0.1) == 1
    assert accepted(losses[:, 2:], 0.1, 0.1) is None


def test_a_risk_that_turns_is_above_the_target_no_more_often_than_delta():
    """Setting j has losses of 0 or 1 with the risk r_j, which falls and rises; alpha stands exactly at one of them."""
    random, alpha, delta, n = np.random.default_rng(1), 0.3, 0.2, 50
    risks = np.array([0.02, 0.15, 0.05, 0.22, 0.3, 0.301, 0.1, 0.5])
    wrong = 0
    for _ in range(1000):
        place = accepted((random.random((n, 1)) < risks).astype(float), alpha, delta)
        wrong += place is not None and (risks[: place + 1] > alpha).any()
    assert wrong / 1000 <= delta + 3 * sqrt(delta / 1000)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.2, 0.5])
def test_how_many_groups_it_takes(alpha):
    n, m = least_controlled(alpha), least_tested(alpha, 0.1)
    assert controlled(np.zeros((n, 1)), alpha) == 0
    assert accepted(np.zeros((m, 1)), alpha, 0.1) == 0
    assert n == 1 or controlled(np.zeros((n - 1, 1)), alpha) is None
    assert m == 1 or accepted(np.zeros((m - 1, 1)), alpha, 0.1) is None


def test_a_width_holds_for_cases_of_new_patients():
    """Errors of a patient's cases are alike: cases would be sure too early if they were counted one by one."""
    random, level, held = np.random.default_rng(2), 0.8, []
    for _ in range(1500):
        errors = np.clip(random.exponential(0.2, 31)[:, None] * random.uniform(0.8, 1.2, (31, 5)), 0, 1)
        half = width(errors[:-1].ravel(), np.repeat(np.arange(30), 5), level)
        held.append((errors[-1] <= half).mean())
    assert abs(np.mean(held) - 26 / 31) < 0.03  # ceil(31 * 0.8) of 31 places, nearly
    assert np.mean(held) >= level - 2 * np.std(held) / sqrt(len(held))
    assert width([0.1, 0.2], [0, 1], 0.9) is None
