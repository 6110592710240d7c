import json
from fractions import Fraction
from math import ceil, log
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from torchmetrics.classification import BinaryCalibrationError

from somite.metrics.calibration import Bins, ace, bins, boundary_band, brier, ece, foreground, mce, nll

REFERENCE = Path(__file__).parents[1] / "reference"
WANT = json.loads((REFERENCE / "ece_toy_expected.json").read_text())


@pytest.fixture(scope="module")
def toy():
    with np.load(REFERENCE / "ece_toy.npz") as file:
        return file["p"], file["y"]


def coin(shape, seed, warp=1.0):
    """p uniform and y ~ Bernoulli(p ** warp): calibrated for warp 1."""
    rng = np.random.default_rng(seed)
    p = rng.random(shape, dtype=np.float32)
    return p, rng.random(shape) < p.astype(float) ** warp


@pytest.mark.parametrize("n", [10, 15, 20])
def test_toy_case(toy, n):
    b = bins(*toy, n)
    assert ece(b) == pytest.approx(WANT[f"own_fg_{n}"], abs=1e-6)
    assert ece(b) == pytest.approx(WANT[f"tm_binary_l1_{n}"], abs=1e-6)
    assert ace(b) == pytest.approx(WANT[f"monai_average_{n}"], abs=1e-6)
    assert mce(b) == pytest.approx(WANT[f"monai_maximum_{n}"], abs=1e-6)


def test_toy_proper_scores(toy):
    assert brier(*toy) == pytest.approx(WANT["brier"], abs=1e-6)
    assert nll(*toy) == pytest.approx(WANT["nll"], abs=1e-6)


@pytest.mark.parametrize("n", [1, 7, 15])
def test_ece_and_mce_agree_with_torchmetrics(n):
    p, y = coin(5000, 1, warp=2.0)
    for norm, error in (("l1", ece), ("max", mce)):
        want = BinaryCalibrationError(n_bins=n, norm=norm)(torch.from_numpy(p), torch.from_numpy(y).int()).item()
        assert error(bins(p, y, n)) == pytest.approx(want, abs=1e-5)
        assert want > 0.1


def test_errors_agree_with_monai_per_image():
    p, y = coin((3, 1, 17, 13), 2, warp=1.7)
    p[1] *= 0.4  # leaves bins empty
    y[2] = False
    for name, error in (("expected", ece), ("average", ace), ("maximum", mce)):
        metric = CalibrationErrorMetric(15, calibration_reduction=name, metric_reduction="none")
        want = metric(torch.from_numpy(p), torch.from_numpy(y).float()).flatten().tolist()
        assert [error(bins(p[i], y[i], 15)) for i in range(3)] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("n", [10, 15, 20])
def test_votes_fall_on_exact_sides_of_edges(n):
    """Exact fractions tell the bin of k/N; a float32 mean and a jitter of 5e-7 must not move it."""
    for members in (1, 2, 5, 9, 10, 20, 25):
        for k in range(members + 1):
            want = max(ceil(Fraction(k, members) * n) - 1, 0)
            mean = np.mean(np.arange(members, dtype=np.float32) < k, dtype=np.float32)
            for jitter in (-5e-7, 0, 5e-7):
                p = np.clip([np.float64(mean) + jitter], 0, 1)
                assert np.flatnonzero(bins(p, [1.0], n).count).tolist() == [want], (members, k, jitter)


def test_bins_are_right_closed_and_zero_is_kept():
    b = bins([0.0, 0.5, 0.50001, 1.0], [0, 0, 1, 1], 2)
    assert b.count.tolist() == [2, 2]
    assert b.confidence.tolist() == pytest.approx([0.5, 1.50001])
    assert b.positives.tolist() == [0, 2]


def test_cases_add_to_the_pooled_bins():
    p, y = coin((4, 50), 3)
    pooled = sum((bins(p[i], y[i]) for i in range(4)), Bins.empty(15))
    np.testing.assert_allclose(pooled.array(), bins(p, y).array())
    assert ece(Bins(*pooled.array())) == ece(pooled) > 0
    with pytest.raises(ValueError, match="15 bins and 10"):
        bins(p, y, 15) + bins(p, y, 10)


def test_an_oracle_is_calibrated_and_its_warp_is_not():
    # E|p - p^2| = 1/6 for uniform p
    assert ece(bins(*coin(1_000_000, 4))) < 0.002
    assert ece(bins(*coin(1_000_000, 4, warp=2.0))) == pytest.approx(1 / 6, abs=0.002)


def test_ace_leaves_out_empty_bins_and_weighs_bins_alike():
    # three pixels at 0.1, never positive: gap 0.1; one at 0.9, positive: gap 0.1; one at 0.55, negative: gap 0.55
    b = bins([0.1, 0.1, 0.1, 0.95, 0.55], [0, 0, 0, 1, 0], 10)
    assert ace(b) == pytest.approx((0.1 + 0.05 + 0.55) / 3)
    assert ece(b) == pytest.approx((3 * 0.1 + 0.05 + 0.55) / 5)
    assert mce(b) == pytest.approx(0.55)


def test_no_pixels_have_no_gap_but_no_score():
    b = bins(np.zeros(0), np.zeros(0))
    assert (ece(b), mce(b), ace(b)) == (0, 0, 0)
    for score in (brier, nll):
        with pytest.raises(ValueError, match="no pixels"):
            score(np.zeros(0), np.zeros(0))


def test_scores_in_closed_form():
    assert brier([0.2, 0.7], [0, 1]) == pytest.approx((0.04 + 0.09) / 2)
    assert nll([0.2, 0.7], [0, 1]) == pytest.approx(-(log(0.8) + log(0.7)) / 2)
    assert nll([0.0], [1]) == pytest.approx(-log(1e-6))
    assert nll([1.0], [0], clip=1e-3) == pytest.approx(-log(1e-3))


@pytest.mark.parametrize("clip", [0.0, 0.5, -1.0])
def test_nll_refuses_a_clip(clip):
    with pytest.raises(ValueError, match="clip"):
        nll([0.5], [1], clip)


@pytest.mark.parametrize("p", [[1.1], [-0.1], [np.nan]])
def test_refuses_what_is_no_probability(p):
    for score in (bins, brier, nll):
        with pytest.raises(ValueError, match="probability"):
            score(p, [1.0])
        with pytest.raises(ValueError, match="truth"):
            score([0.5], p)


def test_refuses_unequal_shapes_and_no_bins():
    with pytest.raises(ValueError, match="shape"):
        bins(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="at least one bin"):
        bins([0.5], [1], 0)


@pytest.mark.parametrize("width", [1, 2, 4.5])
def test_band_of_a_half_plane(width):
    truth = np.zeros((6, 20), dtype=bool)
    truth[:, 10:] = True
    want = np.zeros_like(truth)
    want[:, 10 - int(width) : 10 + int(width)] = True
    np.testing.assert_array_equal(boundary_band(truth, width), want)


def test_band_of_a_dot_is_a_disc():
    truth = np.zeros((11, 11), dtype=bool)
    truth[5, 5] = True
    y, x = np.mgrid[:11, :11] - 5
    np.testing.assert_array_equal(boundary_band(truth, 3), x**2 + y**2 <= 9)


def test_band_is_the_same_for_the_complement_and_none_without_a_boundary():
    truth = np.random.default_rng(0).random((15, 15, 5)) < 0.02
    band = boundary_band(truth, 1.5)
    assert 0 < band.sum() < band.size
    np.testing.assert_array_equal(band, boundary_band(~truth, 1.5))
    assert not boundary_band(np.zeros((4, 4), dtype=bool), 2).any()
    assert not boundary_band(np.ones((4, 4), dtype=bool), 2).any()


def test_foreground_is_the_union():
    p = np.array([0.1, 0.1, 0.5, 0.49, 0.9])
    truth = np.array([False, True, False, False, True])
    assert foreground(p, truth).tolist() == [False, True, True, False, True]


def test_regions_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="bool"):
        boundary_band(np.zeros((3, 3)), 1)
    with pytest.raises(ValueError, match="width"):
        boundary_band(np.zeros((3, 3), dtype=bool), 0)
    with pytest.raises(ValueError, match="bool"):
        foreground(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="shape"):
        foreground(np.zeros(3), np.zeros(4, dtype=bool))
