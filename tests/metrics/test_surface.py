import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist, directed_hausdorff

from somite.metrics.surface import surface


def blob(shape, seed):
    """An irregular shape that may touch the border and have several pieces."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return noise > np.quantile(noise, 0.85)


CASES = [((40, 33), (1.0, 1.0)), ((40, 33), (0.7, 2.3)), ((20, 18, 16), (3.0, 0.9, 1.1))]


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_monai(shape, spacing, seed):
    mask, truth = blob(shape, 2 * seed), blob(shape, 2 * seed + 1)
    tensors = [torch.from_numpy(m)[None, None].float() for m in (mask, truth)]
    options = {"include_background": True, "spacing": spacing}
    hd95 = compute_hausdorff_distance(*tensors, percentile=95, directed=False, **options).item()
    assert hd95 > 1
    for tolerance in (0.5, 1.5, 4.05):  # no lattice distance: equality there is a matter of rounding
        nsd = compute_surface_dice(*tensors, class_thresholds=[tolerance], **options).item()
        assert surface(mask, truth, spacing, tolerance) == pytest.approx({"nsd": nsd, "hd95": hd95}, rel=1e-5)


def test_agrees_with_brute_force_over_pairs_of_edge_pixels():
    spacing = np.array([0.7, 2.3])
    mask, truth = blob((30, 25), 1), blob((30, 25), 2)

    def edge_points(m):
        padded = np.pad(m, 1)
        inner = [np.roll(padded, step, axis)[1:-1, 1:-1] for step in (-1, 1) for axis in (0, 1)]
        return np.argwhere(m & ~np.logical_and.reduce(inner)) * spacing

    table = cdist(edge_points(mask), edge_points(truth))
    forth, back = table.min(1), table.min(0)
    want = {
        "hd95": max(np.percentile(forth, 95), np.percentile(back, 95)),
        "nsd": np.mean(np.concatenate((forth, back)) <= 3.1),
    }
    assert surface(mask, truth, tuple(spacing), 3.1) == pytest.approx(want)


def test_two_pixels_are_as_far_apart_as_scipy_says():
    mask, truth = np.zeros((9, 9, 9), dtype=bool), np.zeros((9, 9, 9), dtype=bool)
    mask[1, 2, 3] = truth[8, 5, 4] = True
    spacing = np.array([2.0, 1.0, 0.5])
    apart = directed_hausdorff(np.argwhere(mask) * spacing, np.argwhere(truth) * spacing)[0]
    assert surface(mask, truth, spacing, 0.999 * apart) == {"nsd": 0, "hd95": pytest.approx(apart)}
    assert surface(mask, truth, spacing, 1.001 * apart)["nsd"] == 1


def test_tolerance_is_inclusive_whatever_the_rounding():
    mask, truth = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    mask[1, 1] = truth[4, 1] = True
    assert 3 * 0.1 > 0.3  # the trap
    assert surface(mask, truth, (0.1, 0.1), 0.3)["nsd"] == 1
    assert surface(mask, truth, (0.1, 0.1), 0.29)["nsd"] == 0


def test_a_mask_is_at_distance_zero_of_itself():
    mask = blob((20, 20), 0)
    result = surface(mask, mask, (1.5, 1.5), 0)
    assert result == {"nsd": 1, "hd95": 0} and {type(v) for v in result.values()} == {float}


def test_empty_masks_follow_the_rule():
    empty, dot = np.zeros((30, 40), dtype=bool), np.zeros((30, 40), dtype=bool)
    dot[3, 3] = True
    assert surface(empty, empty, (1, 1), 1) == {"nsd": 1, "hd95": 0}
    for pair in ((empty, dot), (dot, empty)):
        assert surface(*pair, (2, 2), 1) == {"nsd": 0, "hd95": pytest.approx(100)}  # 60, 80, 100


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, np.nan)])
def test_refuses_a_wrong_spacing(spacing):
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(ValueError, match="spacing"):
        surface(mask, mask, spacing, 1)


def test_refuses_a_negative_tolerance_and_labels():
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(ValueError, match="tolerance"):
        surface(mask, mask, (1, 1), -1)
    with pytest.raises(ValueError, match="bool"):
        surface(mask.astype(int), mask, (1, 1), 1)
