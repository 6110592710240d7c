import numpy as np
import pytest
from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix
from torch import from_numpy

from somite.metrics.risk import PLAIN, THRESHOLDS, at, choose, guarantee, rates, risks


def case(seed=0):
    random = np.random.default_rng(seed)
    p = random.random((13, 17)).astype(np.float32)
    p.flat[:9] = [0, 0, 1, 1, 0.5, 0.5, 0.25, 1e-6, 1 - 1e-6]
    return p, random.random(p.shape) < p


@pytest.mark.parametrize("risk", ["fnr", "fpr", "fdr"])
def test_risks_agree_with_monai_at_each_threshold(risk):
    p, truth = case()
    found = risks(p, truth)[risk]
    name = {"fnr": "miss rate", "fpr": "fall out", "fdr": "false discovery rate"}[risk]
    for place in [*range(0, len(THRESHOLDS), 60), at(PLAIN), len(THRESHOLDS) - 1]:
        mask = p >= THRESHOLDS[place]
        one, other = (from_numpy(array[None, None].astype(np.float32)) for array in (mask, truth))
        want = float(compute_confusion_matrix_metric(name, get_confusion_matrix(one, other))) if mask.any() else float(risk == "fnr")
        assert found[place] == pytest.approx(want, abs=1e-6)
        assert rates(mask, truth)[risk] == pytest.approx(want, abs=1e-6)


def test_misses_grow_and_false_alarms_fall_with_the_threshold():
    found = risks(*case(1))
    assert (np.diff(found["fnr"]) >= 0).all()
    assert (np.diff(found["fpr"]) <= 0).all()
    assert found["fnr"][0] == 0  # all is marked
    assert found["fpr"][0] == 1


def test_empty_masks_and_truths():
    p = np.full((4, 4), 0.3, np.float32)
    nothing, all_ = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    found, full = risks(p, nothing), risks(p, all_)
    assert np.isnan(found["fnr"]).all()  # nothing to miss: it says nothing of missing
    assert np.isnan(full["fpr"]).all()
    assert found["fdr"][0] == 1  # what is marked is false
    assert found["fdr"][-1] == found["fpr"][-1] == 0  # nothing is marked
    assert full["fnr"][-1] == 1
    assert np.isnan(rates(nothing, nothing)["fnr"])
    assert rates(nothing, nothing)["fdr"] == 0


def test_thresholds_are_those_that_float32_holds():
    assert (THRESHOLDS.astype(np.float32) == THRESHOLDS).all()
    assert (np.diff(THRESHOLDS) > 0).all()
    assert THRESHOLDS[0] == 0 and THRESHOLDS[-1] == 1
    assert THRESHOLDS[at(0.5)] == 0.5
    with pytest.raises(ValueError, match="none of the thresholds"):
        at(0.123)


def below(value):
    """The last threshold that a probability reaches."""
    return THRESHOLDS[np.searchsorted(THRESHOLDS, np.float32(value), side="right") - 1]


def above(value):
    return THRESHOLDS[np.searchsorted(THRESHOLDS, np.float32(value), side="right")]


def test_the_threshold_that_gives_most_away():
    """Each case a share s of its truth at 0.9 and the rest at 0.2: FNR is 0 up to 0.2 and 1 - s up to 0.9; likewise of the background."""
    p = np.array([0.9] * 8 + [0.2] * 2 + [0.6] * 1 + [0.1] * 9, np.float32)
    truth = np.arange(20) < 10
    losses = {name: np.stack([values] * 30) for name, values in risks(p, truth).items()}
    assert choose("fnr", losses["fnr"], 0.1, 0.1) == below(0.2)  # 0 of 10 missed; 0.2 would be too many
    assert choose("fnr", losses["fnr"], 0.25, 0.1) == below(0.9)
    assert choose("fpr", losses["fpr"], 0.2, 0.1) == above(0.1)  # 1 of 10
    assert choose("fpr", losses["fpr"], 0.1, 0.1) == above(0.6)
    assert choose("fdr", losses["fdr"], 0.3, 0.1) == above(0.1)  # 1 of 11
    assert choose("fnr", losses["fnr"][:3], 0.1, 0.1) is None
    assert "expectation" in guarantee("fpr", 0.1, 0.2)
    assert "probability 0.8" in guarantee("fdr", 0.1, 0.2)


def test_what_cannot_be_a_probability():
    with pytest.raises(ValueError, match="spans"):
        risks(np.array([1.5]), np.array([True]))
    with pytest.raises(ValueError, match="shape"):
        risks(np.array([0.5, 0.5]), np.array([True]))
    with pytest.raises(ValueError, match="dtype"):
        risks(np.array([0.5]), np.array([1]))
