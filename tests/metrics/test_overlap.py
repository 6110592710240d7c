import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou

from somite.metrics.overlap import EMPTY_RULE, overlap

EMPTY, FULL = np.zeros((3, 4), dtype=bool), np.ones((3, 4), dtype=bool)


def test_counts_by_hand():
    mask = np.array([1, 1, 1, 0, 0, 0, 0], dtype=bool)
    truth = np.array([0, 1, 1, 1, 1, 1, 0], dtype=bool)
    assert overlap(mask, truth) == pytest.approx({"dice": 4 / 8, "iou": 2 / 6, "precision": 2 / 3, "recall": 2 / 5})


@pytest.mark.parametrize("shape", [(12, 9), (5, 6, 7)])
def test_agrees_with_monai(shape):
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.5, 0.9):
        mask, truth = rng.random(shape) < rate, rng.random(shape) < 0.4
        tensors = [torch.from_numpy(m)[None, None].float() for m in (mask, truth)]
        got = overlap(mask, truth)
        assert got["dice"] == pytest.approx(compute_dice(*tensors).item(), abs=1e-6)
        assert got["iou"] == pytest.approx(compute_iou(*tensors).item(), abs=1e-6)


def test_both_empty_is_perfect():
    assert overlap(EMPTY, EMPTY) == {"dice": 1, "iou": 1, "precision": 1, "recall": 1}
    assert "both" in EMPTY_RULE and "diagonal" in EMPTY_RULE


@pytest.mark.parametrize(("mask", "truth"), [(EMPTY, FULL), (FULL, EMPTY)])
def test_one_empty_is_the_worst(mask, truth):
    assert overlap(mask, truth) == {"dice": 0, "iou": 0, "precision": 0, "recall": 0}


def test_refuses_labels_and_unequal_shapes():
    with pytest.raises(ValueError, match="bool"):
        overlap(EMPTY.astype(np.uint8), EMPTY)
    with pytest.raises(ValueError, match="shape"):
        overlap(EMPTY, EMPTY[:, :2])
