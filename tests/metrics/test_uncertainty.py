from math import log, sqrt

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from scipy import stats

from somite.metrics.uncertainty import disagreement, disputed, entropy, expected_dice, nqm, spread


def test_spread_of_votes_in_closed_form():
    members = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 1, 0]], dtype=bool)
    assert spread(members).tolist() == pytest.approx([0, 0, sqrt(1 / 4 * 3 / 4)])


def test_spread_is_the_population_form():
    members = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    np.testing.assert_allclose(spread(members), torch.from_numpy(members).std(0, correction=0), rtol=1e-5)
    assert not spread(members[:1]).any()


def test_nqm_by_hand():
    members = np.array([[0, 1, 1, 0], [0, 1, 0, 0]], dtype=bool)  # std 0 0 .5 0, mean 0 1 .5 0
    assert nqm(members) == pytest.approx(0.5 / 1.5)
    assert nqm(np.stack((members[0], members[0]))) == 0
    assert nqm(np.zeros((3, 4), dtype=bool)) == 0


def test_entropy_agrees_with_scipy():
    p = np.random.default_rng(0).random((6, 7))
    np.testing.assert_allclose(entropy(p), stats.entropy(np.stack((p, 1 - p)), axis=0))
    assert entropy(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, log(2), 0])


def test_disagreement_agrees_with_monai_over_pairs():
    members = np.random.default_rng(1).random((4, 9, 9)) < 0.4
    tensors = torch.from_numpy(members)[:, None, None].float()
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    want = 1 - np.mean([compute_dice(tensors[i], tensors[j]).item() for i, j in pairs])
    assert disagreement(members) == pytest.approx(want, abs=1e-6)


def test_disagreement_of_empty_masks_follows_the_rule():
    members = np.zeros((3, 5), dtype=bool)
    assert disagreement(members) == 0
    members[0, 0] = True  # two pairs of one empty, one pair of both empty
    assert disagreement(members) == pytest.approx(2 / 3)


def test_disputed_pixels_by_hand():
    labels = np.array([[0, 1, 2, 2], [0, 1, 2, 1], [0, 0, 2, 2]], dtype=np.uint8)  # the second and the last pixel
    assert disputed(labels) == 0.5
    assert disputed(labels[[0, 1]]) == disputed(labels[[0, 2]]) == 0.25
    assert disputed(labels[[0, 0]]) == 0


def test_refuses_too_few_members():
    one = np.ones((1, 3), dtype=bool)
    for function in (disagreement, disputed):
        with pytest.raises(ValueError, match="n >= 2"):
            function(one)
    for function in (spread, nqm):
        with pytest.raises(ValueError, match="n >= 1"):
            function(one[:0])
        with pytest.raises(ValueError, match="n >= 1"):
            function(one[0])


def test_refuses_what_is_no_probability():
    for p in ([1.2], [-0.1], [np.nan]):
        with pytest.raises(ValueError, match="probability"):
            entropy(np.array(p))
    with pytest.raises(ValueError, match="members reach"):
        nqm(np.array([[-1.0, 1.0]]))
    with pytest.raises(ValueError, match="bool"):
        disagreement(np.ones((2, 3)))


def test_expected_dice_is_the_mean_over_independent_truths():
    random = np.random.default_rng(0)
    p = random.beta(0.5, 0.5, (20, 20))
    mask = p >= 0.4
    drawn = random.random((4000, 20, 20)) < p
    dice = 2 * (drawn & mask).sum((1, 2)) / (mask.sum() + drawn.sum((1, 2)))
    assert expected_dice(p, mask) == pytest.approx(dice.mean(), abs=0.002)


def test_expected_dice_of_an_empty_mask_is_how_likely_an_empty_truth_is():
    assert expected_dice(np.array([0.1, 0.2]), np.zeros(2, bool)) == pytest.approx(0.9 * 0.8)
    assert expected_dice(np.array([0.1, 1.0]), np.zeros(2, bool)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="spans"):
        expected_dice(np.array([1.1]), np.ones(1, bool))
