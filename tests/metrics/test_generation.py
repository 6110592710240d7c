"""KID against torchmetrics, manifolds against their definitions written out, and what sets of known relation must give."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from somite.metrics.generation import chance, diversity, kid, kid_interval, manifold, memorised, nearest


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


def test_the_nearest_is_found_and_held_against_those_around_it():
    random = np.random.default_rng(0)
    found, training = random.normal(size=(300, 5)), random.normal(size=(70, 5))  # more than are measured at once
    index, distance, relative = nearest(found, training, among=9)
    for i in (0, 255, 256, 299):
        by_hand = np.sqrt(((training - found[i]) ** 2).sum(1))
        assert index[i] == by_hand.argmin()
        assert distance[i] == pytest.approx(by_hand.min())
        assert relative[i] == pytest.approx(by_hand.min() / np.sort(by_hand)[:9].mean())
    index, distance, relative = nearest(training[::-1], training)
    assert index.tolist() == list(range(69, -1, -1))
    assert not distance.any() and not relative.any()
    assert nearest(found[:1], training[:1])[2] == [1]  # one training image alone
    assert nearest(training[:1], training[[0, 0, 0]])[2] == [0]  # a copy of what is there several times


def test_copies_are_memorised_and_fresh_draws_by_chance_alone():
    assert [chance(count) for count in (4, 18, 19, 99, 120)] == pytest.approx([1 / 5, 1 / 19, 1 / 20, 5 / 100, 6 / 121])
    random = np.random.default_rng(0)
    found = []
    for _ in range(300):
        training, held_out, fresh = random.normal(size=(40, 3)), random.normal(size=(30, 3)), random.normal(size=(30, 3))
        copies = training[:30] + 1e-9
        of_held_out, of_fresh, of_copies, of_both = (
            nearest(one, training) for one in (held_out, fresh, copies, np.concatenate([copies[:10], fresh[:20]]))
        )
        for kind in (1, 2):
            assert memorised(of_copies[kind], of_held_out[kind]) == [1]
            assert memorised(of_both[kind], of_held_out[kind])[0] >= 1 / 3
        found.append([memorised(of_fresh[kind], of_held_out[kind])[0] for kind in (1, 2)])
    error = np.std(found, 0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, 0) - chance(30)) < 4 * error).all()
    assert error.max() < 0.005


def test_what_is_near_to_everything_is_no_copy():
    """The mean of a distribution of many dimensions is nearer to each draw than two draws are, and a copy of none."""
    random = np.random.default_rng(0)
    training, held_out = random.normal(size=(200, 60)), random.normal(size=(100, 60))
    blurred = 0.1 * random.normal(size=(100, 60))
    ours, theirs = nearest(blurred, training), nearest(held_out, training)
    assert memorised(ours[1], theirs[1]) == [1]
    assert memorised(ours[2], theirs[2])[0] < 0.05


def test_weights_of_a_bootstrap_are_repetitions():
    random = np.random.default_rng(0)
    real, made = random.normal(size=(25, 3)), random.normal(size=(30, 3))
    distance = random.uniform(size=25), random.uniform(size=30)
    of_real, of_made = random.multinomial(25, np.full(25, 1 / 25), 4), random.multinomial(30, np.full(30, 1 / 30), 4)
    found = memorised(distance[1], distance[0], of_made.astype(float), of_real.astype(float))
    ratio = diversity(real, made, of_real.astype(float), of_made.astype(float))
    for draw in range(4):
        drawn = [np.repeat(one, weights[draw], axis=0) for one, weights in zip(distance, (of_real, of_made), strict=True)]
        assert found[draw] == memorised(drawn[1], drawn[0])[0]
        apart = []
        for one, weights in ((made, of_made[draw]), (real, of_real[draw])):
            pairs = [(i, j) for i in range(len(one)) for j in range(len(one)) if i != j]
            each = np.array([np.linalg.norm(one[i] - one[j]) for i, j in pairs])
            count = np.array([weights[i] * weights[j] for i, j in pairs])
            apart.append((each * count).sum() / count.sum())
        assert ratio[draw] == pytest.approx(apart[0] / apart[1])


def test_diversity_is_a_ratio_of_spreads():
    random = np.random.default_rng(0)
    real, made = random.normal(size=(2, 400, 4))
    assert diversity(real, 3 + 0.5 * real) == pytest.approx(0.5)
    assert diversity(real, np.ones((5, 4))) == [0]
    assert diversity(real, made)[0] == pytest.approx(1, abs=0.05)
    assert np.isnan(diversity(np.ones((5, 4)), made))


@pytest.mark.parametrize(("one", "other"), [((3, 2), (4, 3)), ((1, 2), (5, 2)), ((3,), (3,))])
def test_what_is_no_pair_of_sets(one, other):
    with pytest.raises(ValueError, match=r"features|at least"):
        kid(np.zeros(one), np.zeros(other))
