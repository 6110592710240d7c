"""KID against torchmetrics, manifolds against their definitions written out, and what sets of known relation must give."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from somite.metrics.generation import kid, kid_interval, manifold, memorised, nearest


@pytest.fixture
def sets():
    random = np.random.default_rng(0)
    return random.normal(size=(40, 6)), random.normal(0.3, 1.2, size=(30, 6))


def test_kid_is_torchmetrics(sets):
    theirs = poly_mmd(*(torch.from_numpy(np.concatenate([one, one[:0]])) for one in (sets[0][:30], sets[1])), degree=3, coef=1.0)
    assert kid(sets[0][:30], sets[1]) == pytest.approx(float(theirs), rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average():
    random = np.random.default_rng(1)
    found = [kid(*random.normal(size=(2, 30, 4))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert min(found) < 0  # unbiased, so it goes below


def test_its_interval_holds_the_value_and_covers(sets):
    found = kid_interval(*sets, draws=300)
    assert found.mean == pytest.approx(kid(*sets))
    assert found.low < found.mean < found.high
    random = np.random.default_rng(2)
    covers = 0
    for seed in range(60):
        one = kid_interval(*random.normal(size=(2, 60, 3)), draws=200, seed=seed)
        covers += one.low <= 0 <= one.high
    assert covers >= 50  # of 57 wanted: the true value of two equal distributions is 0


def test_manifolds_are_their_definitions(sets):
    real, made, k = *sets, 3
    distance = lambda a, b: np.sqrt(((a - b) ** 2).sum())  # noqa: E731
    radius = {
        "real": [sorted(distance(x, y) for y in real)[k] for x in real],
        "made": [sorted(distance(x, y) for y in made)[k] for x in made],
    }
    inside = np.array([[distance(x, y) <= r for y in made] for x, r in zip(real, radius["real"], strict=True)])
    back = np.array([[distance(x, y) <= r for y, r in zip(made, radius["made"], strict=True)] for x in real])
    found = manifold(real, made, k)
    assert found["precision"] == pytest.approx(inside.any(0).mean())
    assert found["recall"] == pytest.approx(back.any(1).mean())
    assert found["density"] == pytest.approx(inside.sum() / (k * len(made)))
    assert found["coverage"] == pytest.approx(inside.any(1).mean())


def test_a_mode_that_is_left_out_costs_recall_and_coverage_alone():
    random = np.random.default_rng(0)
    two = np.concatenate([random.normal(0, 1, (50, 3)), random.normal(20, 1, (50, 3))])
    one = random.normal(0, 1, (100, 3))
    found = manifold(two, one)
    assert found["precision"] > 0.8 and found["recall"] < 0.6 and found["coverage"] <= 0.5
    assert manifold(one, two)["recall"] > 0.8


def test_copies_are_told():
    random = np.random.default_rng(0)
    training, held_out, fresh = random.normal(size=(3, 80, 5))
    index, distance = nearest(training[::-1] + 1e-9, training)
    assert index.tolist() == list(range(79, -1, -1)) and distance.max() < 1e-7
    assert memorised(training + 1e-3, training, held_out) == pytest.approx(0.5, abs=0.02)
    assert abs(memorised(fresh, training, held_out)) < 0.15
    assert memorised(training, training, training) == 0


@pytest.mark.parametrize(("one", "other"), [((3, 2), (4, 3)), ((1, 2), (5, 2)), ((3,), (3,))])
def test_what_is_no_pair_of_sets(one, other):
    with pytest.raises(ValueError, match=r"features|at least"):
        kid(np.zeros(one), np.zeros(other))
