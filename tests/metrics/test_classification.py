"""torchmetrics has every measure; a bootstrap is their values on repeated cases."""

import numpy as np
import pytest
import torch
from torchmetrics import functional as tm

from somite.metrics.classification import measures, precision_recall, roc
from somite.metrics.intervals import reweighted_interval

ONES = np.ones((1, 60))


def example(k, exclusive, seed=0):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random((60, k)), 1)  # with ties
    y = np.eye(k)[rng.integers(k, size=60)] if exclusive else (rng.random((60, k)) < 0.3).astype(float)
    p = p + 0.3 * y
    return (p / p.sum(1, keepdims=True) if exclusive else p.clip(0, 1)), y


def of_torchmetrics(p, y, exclusive):
    k = p.shape[1]
    p = torch.tensor(p)
    if exclusive:
        task = {"task": "multiclass", "num_classes": k}
        t, d = torch.tensor(y.argmax(1)), p.argmax(1)
    else:
        task = {"task": "multilabel", "num_labels": k}
        t = torch.tensor(y).long()
        d = (p >= 0.5).long()  # torchmetrics decides above 0.5, and 0.5 itself occurs here
    macro = {**task, "average": "macro"}
    found = {
        "auc": tm.auroc(p, t, **macro),
        "map": tm.average_precision(p, t, **macro),
        "sensitivity": tm.recall(d, t, **macro),
        "specificity": tm.specificity(d, t, **macro),
        "f1": tm.f1_score(d, t, **macro),
    }
    if exclusive:
        found |= {"balanced_accuracy": tm.accuracy(d, t, **macro), "kappa": tm.cohen_kappa(d, t, **task)}
        found["kappa_quadratic"] = tm.cohen_kappa(d, t, **task, weights="quadratic")
    else:
        found["accuracy"] = tm.accuracy(d, t, **macro)
        found["kappa"] = torch.stack([tm.cohen_kappa(d[:, c], t[:, c], task="binary") for c in range(k)]).mean()
        found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_all_measures_agree_with_torchmetrics(k, exclusive):
    p, y = example(k, exclusive)
    found = {name: float(measure(ONES)[0]) for name, measure in measures(p, y, exclusive, ordered=exclusive).items()}
    assert found == pytest.approx(of_torchmetrics(p, y, exclusive), abs=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_weight_is_a_repeated_case(exclusive):
    p, y = example(3, exclusive)
    w = np.random.default_rng(1).integers(0, 4, size=(5, 60))
    mine = {name: measure(w.astype(float)) for name, measure in measures(p, y, exclusive, True).items()}
    for draw in range(5):
        theirs = of_torchmetrics(p.repeat(w[draw], 0), y.repeat(w[draw], 0), exclusive)
        assert {name: float(values[draw]) for name, values in mine.items()} == pytest.approx(theirs, abs=1e-6)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    p, y = example(3, True)
    y[y[:, 2] > 0] = [1, 0, 0]
    two = [float(tm.auroc(torch.tensor(p[:, c]), torch.tensor(y[:, c]).long(), task="binary")) for c in (0, 1)]
    assert float(measures(p, y, True)["auc"](ONES)[0]) == pytest.approx(np.mean(two))
    alone = measures(p[:, :2], np.tile([1.0, 0.0], (60, 1)), True)
    assert np.isnan(alone["auc"](ONES)).all()


def test_curves_are_torchmetrics():
    p, y = example(2, True)
    p, y = p[:, 1], y[:, 1]
    fpr, tpr, _ = tm.roc(torch.tensor(p), torch.tensor(y).long(), task="binary")
    assert np.allclose(roc(p, y), (fpr, tpr))
    precision, recall, _ = tm.precision_recall_curve(torch.tensor(p), torch.tensor(y).long(), task="binary")
    mine = precision_recall(p, y)
    first = int((recall == 1).sum()) - 1  # torchmetrics goes on below the last positive as far as mine does
    assert np.allclose(mine[1][::-1][first:], precision[first:-1])
    assert np.allclose(mine[0][::-1][first:], recall[first:-1])


def test_the_interval_of_an_auc_covers_it():
    """Two normal distributions one standard deviation apart: the AUC is Phi(1 / sqrt 2) = 0.7602."""
    hits = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        truth = rng.random(80) < 0.4
        score = 1 / (1 + np.exp(-(rng.standard_normal(80) + truth)))
        p, y = np.stack([1 - score, score], 1), np.stack([~truth, truth], 1).astype(float)
        found = reweighted_interval(measures(p, y, True)["auc"], np.arange(80), resamples=200)
        hits.append(found.low <= 0.7602 <= found.high)
    assert 0.87 < np.mean(hits) < 0.995


def test_groups_are_drawn_whole_and_one_shows_no_spread():
    groups = np.repeat(["p", "q", "r"], 20)

    def constant_within(w):
        assert (w.reshape(len(w), 3, 20).std(2) == 0).all()
        return w.sum(1)

    found = reweighted_interval(constant_within, groups, resamples=50)
    assert (found.mean, found.low, found.high, found.cases, found.groups) == (60, 60, 60, 60, 3)
    assert np.isnan(reweighted_interval(constant_within, ["p"] * 60).low)
