from itertools import permutations

import numpy as np
import pytest

from somite.metrics.selective import aurc, excess_aurc, risk_coverage


def area(risks):
    """AURC of risks in the order of answering, by its definition."""
    return np.mean([np.mean(risks[: k + 1]) for k in range(len(risks))])


def test_curve_by_hand():
    coverage, risk = risk_coverage([0.4, 0.1, 0.7], [0.5, 0.9, 0.2])
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk.tolist() == pytest.approx([0.1, 0.25, 0.4])


@pytest.mark.parametrize("confidence", [[1, 1, 1, 1, 1], [3, 3, 1, 2, 2], [5, 2, 2, 2, 9], [1, 2, 3, 4, 5]])
def test_ties_are_the_mean_over_all_their_orders(confidence):
    risk = np.array([0.9, 0.1, 0.4, 0.0, 0.3])
    orders = [o for o in permutations(range(5)) if all(np.diff(np.array(confidence)[list(o)]) <= 0)]
    assert aurc(risk, confidence) == pytest.approx(np.mean([area(risk[list(o)]) for o in orders]))


def test_ideal_order_is_the_best_of_all():
    risk = np.array([0.9, 0.1, 0.4, 0.1, 0.3])
    best = min(area(risk[list(o)]) for o in permutations(range(5)))
    confidence = [1, 2, 5, 4, 3]
    assert excess_aurc(risk, confidence) == pytest.approx(aurc(risk, confidence) - best)
    assert excess_aurc(risk, confidence) > 0.1
    assert excess_aurc(risk, -risk) == 0


def test_confidence_without_information_costs_the_mean_risk():
    risk = np.random.default_rng(0).random(50)
    assert aurc(risk, np.ones(50)) == pytest.approx(risk.mean())
    assert aurc(risk, risk) > risk.mean() > aurc(risk, -risk)


def test_linear_risk_in_closed_form():
    # risk i/n, i = 1..n, ideal order: r_k = (k+1)/(2n), AURC = (n+3)/(4n); worst: (3n+1)/(4n)
    n = 20
    risk = np.arange(1, n + 1) / n
    assert aurc(risk, -risk) == pytest.approx((n + 3) / (4 * n))
    assert aurc(risk, risk) == pytest.approx((3 * n + 1) / (4 * n))
    assert excess_aurc(risk, risk) == pytest.approx((n - 1) / (2 * n))


@pytest.mark.parametrize(("risk", "confidence"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_refuses_unequal_or_no_cases(risk, confidence):
    with pytest.raises(ValueError, match="one number per case"):
        aurc(risk, confidence)


def test_refuses_nan():
    for pair in (([np.nan, 1], [1, 2]), ([1, 2], [np.nan, 1])):
        with pytest.raises(ValueError, match="NaN"):
            excess_aurc(*pair)
