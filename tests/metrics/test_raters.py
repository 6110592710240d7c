"""Sets of masks against sets of masks: values by hand, brute force over permutations, and what must hold for any masks."""

from itertools import permutations

import numpy as np
import pytest

from somite.metrics.overlap import overlap
from somite.metrics.raters import collective_insight, diversity, ged, matched_iou

PARTS = ("combined_sensitivity", "maximum_dice", "diversity_agreement", "collective_insight")


def masks(n, seed=0, rate=0.4, shape=(5, 6)):
    return np.random.default_rng(seed).random((n, *shape)) < rate


def of(*rows):
    return np.array([[c == "x" for c in row] for row in rows])


def iou(a, b):
    return overlap(a, b)["iou"]


NOTHING = np.zeros((1, 5, 6), bool)
# three masks of two pixels, each pair sharing one: every distance is 2/3
TRIANGLE = of("xx.", ".xx", "x.x")


def test_ged_by_hand():
    # 2 E d(S, Y) = 2 * (0 + 2/3 + 2/3) / 3; E d(S, S') = 0; E d(Y, Y') = 6/9 * 2/3
    assert ged(TRIANGLE[:1], TRIANGLE) == pytest.approx(2 * 4 / 9 - 4 / 9)
    # two of the three: 2 E d(S, Y) is as above, and E d(S, S') = 2/4 * 2/3
    assert ged(TRIANGLE[:2], TRIANGLE) == pytest.approx(8 / 9 - 1 / 3 - 4 / 9)
    assert ged(of("x.."), of(".xx")) == 2
    assert ged(of("x..", "..."), of("...", "...")) == pytest.approx(2 * 1 / 2 - 1 / 2)


def test_ged_is_the_mean_over_all_pairs():
    ours, theirs = masks(3), masks(4, seed=1)

    def mean(a, b):
        return np.mean([1 - iou(x, y) for x in a for y in b])

    assert ged(ours, theirs) == pytest.approx(2 * mean(ours, theirs) - mean(ours, ours) - mean(theirs, theirs))


@pytest.mark.parametrize("seed", range(20))
def test_ged_is_a_distance_of_distributions(seed):
    ours, theirs = masks(5, seed, 0.2), masks(3, seed + 100, 0.5)
    assert 0 < ged(ours, theirs) <= 2
    assert ged(ours, theirs) == pytest.approx(ged(theirs, ours))
    assert ged(ours[::-1], theirs) == pytest.approx(ged(ours, theirs))
    assert ged(ours, np.concatenate([ours[::-1], ours])) == pytest.approx(0, abs=1e-12)


def test_more_samples_of_one_distribution_lower_it_by_the_spread_over_n():
    rng = np.random.default_rng(0)
    two, truth = of("xx..", "..xx"), of("xx..", "..xx")  # E d(S, S') = 1/2
    for n in (1, 4):
        mean = np.mean([ged(two[rng.integers(2, size=n)], truth) for _ in range(2000)])
        assert mean == pytest.approx(0.5 / n, abs=0.03)


@pytest.mark.parametrize("seed", range(10))
def test_matched_iou_is_the_best_of_all_permutations(seed):
    ours, theirs = masks(4, seed, 0.3), masks(4, seed + 50, 0.3)
    ours[seed % 4] = theirs[(seed + 1) % 4] = False
    best = max(np.mean([iou(a, theirs[j]) for a, j in zip(ours, p, strict=True)]) for p in permutations(range(4)))
    assert matched_iou(ours, theirs) == pytest.approx(best)


def test_sets_of_unequal_size_are_repeated_to_the_least_common_multiple():
    ours, theirs = masks(2, 3), masks(3, 4)
    a, b = np.repeat(ours, 3, 0), np.repeat(theirs, 2, 0)
    best = max(np.mean([iou(x, b[j]) for x, j in zip(a, p, strict=True)]) for p in permutations(range(6)))
    assert matched_iou(ours, theirs) == pytest.approx(best)
    assert matched_iou(ours, np.concatenate([ours, ours])) == 1


def test_matched_iou_by_hand():
    assert matched_iou(TRIANGLE[:1], TRIANGLE) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert matched_iou(of("x..", "..."), of("...", "x..")) == 1
    assert matched_iou(of("..."), of("...", "...", "...", "xxx")) == 0.75  # what saying nothing scores


def test_the_order_given_is_not_the_matching():
    ours, theirs = of("xxxx", "xxx."), of("xxx.", "x...")
    assert matched_iou(ours, theirs) == pytest.approx((1 + 1 / 4) / 2)  # in the order given (3/4 + 1/3) / 2


def test_collective_insight_by_hand():
    found = collective_insight(of("xx..", "xx.."), of("xx..", "x.x."))
    sensitivity, dice = 2 / 3, (1 + 1 / 2) / 2
    agreement = 1 - 2 * 0.5 / 2  # Var(A - B) = mean of (0, 1, 1, 0) - 0, both as least and as greatest
    assert [found[name] for name in PARTS[:3]] == pytest.approx([sensitivity, dice, agreement])
    expected = 3 * sensitivity * dice * agreement / (sensitivity + dice + agreement)
    assert found["collective_insight"] == pytest.approx(expected)


def test_the_variances_are_of_differences_over_pixels():
    ours, theirs = masks(4, 1), masks(3, 2, rate=0.1)

    def variances(found):
        return [np.var(a.astype(int) - b) for i, a in enumerate(found) for b in found[:i].astype(int)]

    low, high = (abs(f(variances(ours)) - f(variances(theirs))) for f in (min, max))
    assert collective_insight(ours, theirs)["diversity_agreement"] == pytest.approx(1 - (low + high) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_equal_sets_reach_one_in_all_parts_and_others_do_not(seed):
    ours, theirs = masks(4, seed), masks(4, seed + 9)
    assert collective_insight(ours[::-1], ours) == pytest.approx(dict.fromkeys(PARTS, 1.0))
    found = collective_insight(ours, theirs)
    assert found["collective_insight"] < 1 and all(0 <= found[name] <= 1 for name in PARTS)


def test_diversity_is_the_mean_over_different_pairs():
    assert diversity(TRIANGLE) == pytest.approx(2 / 3)
    assert diversity(np.concatenate([TRIANGLE[:1]] * 3)) == 0
    assert diversity(of("x..", "...", "...")) == pytest.approx(2 / 3)
    assert diversity(TRIANGLE[:1]) == 0


def test_empty_masks():
    some = masks(1)
    assert ged(NOTHING, NOTHING) == 0 and ged(NOTHING, some) == 2
    assert matched_iou(NOTHING, NOTHING) == 1 and matched_iou(NOTHING, some) == 0
    assert collective_insight(NOTHING, NOTHING) == dict.fromkeys(PARTS, 1.0)
    found = collective_insight(NOTHING, some)
    assert [found[name] for name in PARTS] == [0, 0, 1, 0]
    assert diversity(np.concatenate([NOTHING, NOTHING])) == 0


def test_volumes_are_sets_like_any():
    ours, theirs = masks(3, 5, shape=(2, 3, 5)), masks(2, 6, shape=(2, 3, 5))
    flat = ours.reshape(3, -1), theirs.reshape(2, -1)
    assert ged(ours, theirs) == ged(*flat) and matched_iou(ours, theirs) == matched_iou(*flat)
    assert collective_insight(ours, theirs) == collective_insight(*flat)


@pytest.mark.parametrize("measure", [ged, matched_iou, collective_insight])
@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (masks(2).astype(np.uint8), "members have dtype uint8; want bool"),
        (masks(2, shape=(5, 5)), "want one shape"),
        (masks(0), "at least one mask"),
    ],
)
def test_what_is_no_set_of_masks_is_refused(measure, ours, words):
    with pytest.raises(ValueError, match=words):
        measure(ours, masks(2))
