import numpy as np
import pytest

from somite.study.figures import forests

CELLS = [("EnsemDiff", "diffusion", 1), ("EnsemDiff", "diffusion", 5), ("EnsemDiff", "feed-forward", 1), ("SegFormer", "feed-forward", 1)]


def rows(cases):
    rng = np.random.default_rng(0)
    return [
        {"network": n, "method": m, "members": str(k), "scaling": s, "seed": "0", "case": str(i), "group": str(i), "dice": d, "ece": 1 - d}
        for n, m, k in CELLS
        for s in ("raw", "temperature")
        for i, d in enumerate(rng.random(cases).round(3))
    ]


def curves():
    told = {"network": "EnsemDiff", "method": "diffusion", "seed": "0"}
    return [{**told, "case": str(i), "group": str(i), "t": str(t), "loss_eps": str(i + t)} for i in range(3) for t in (0, 10, 999)]


def points(axes):
    return [float(x) for container in axes.containers for x in container.lines[0].get_xdata()]


@pytest.mark.parametrize("cases", [1, 6])
def test_each_cell_stands_at_the_mean_of_its_largest_raw_ensemble(cases):
    given = rows(cases)
    made = forests(given, [], ("network", "method"))
    dice, ece = made.axes
    means = [
        np.mean([r["dice"] for r in given if (r["network"], r["method"], r["members"], r["scaling"]) == (n, m, k, "raw")])
        for n, m, k in (("EnsemDiff", "diffusion", "5"), ("EnsemDiff", "feed-forward", "1"), ("SegFormer", "feed-forward", "1"))
    ]
    assert points(dice) == pytest.approx(means)
    assert points(ece) == pytest.approx([1 - mean for mean in means])
    assert [label.get_text() for label in dice.get_yticklabels()] == ["EnsemDiff", "SegFormer"]


def test_the_loss_is_a_mean_over_cases():
    *_, loss = forests(rows(3), curves(), ("network", "method")).axes
    (line,) = loss.lines
    assert line.get_xdata().tolist() == [0, 10, 999]
    assert line.get_ydata().tolist() == [1, 11, 1000]
