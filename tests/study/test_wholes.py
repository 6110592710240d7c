"""Numbers of whole sets: what studies do with them is what is done with means where they are means, and KID of a draw is the KID of that draw."""

import numpy as np
import pytest

from somite.metrics.generation import kid, kid_weighted
from somite.study import verdict, wholes
from somite.study.wholes import Cell


def cell(values, groups, name="a"):
    """A measure that is a mean over cases: one list of values a run."""
    runs = {str(seed): {"m": lambda w, one=one: w @ np.array(one) / w.sum(1)} for seed, one in enumerate(values)}
    return Cell((name, "x"), runs, tuple(groups))


def rows(values, groups):
    return [
        {"case": f"c{i}", "group": group, "seed": seed, "m": value}
        for seed, run in enumerate(values)
        for i, (value, group) in enumerate(zip(run, groups, strict=True))
    ]


def test_of_a_mean_over_cases_all_is_as_for_means():
    random = np.random.default_rng(0)
    groups = [f"g{i // 3}" for i in range(30)]
    ours, theirs = random.normal(size=(2, 3, 30))
    ours += 0.5
    (claim,) = wholes.compared("", cell(ours, groups), cell(theirs, groups), "m", False)
    want = verdict.difference(rows(ours, groups), rows(theirs, groups), "m").difference
    for name in ("mean", "low", "high"):
        assert getattr(claim.difference, name) == pytest.approx(getattr(want, name), abs=1e-12)
    assert claim.verdict == ("holds" if want.low > 0 else "undecided")
    assert cell(ours, groups).spread("m") == pytest.approx(np.std(ours.mean(1), ddof=1))
    assert np.isnan(cell(ours[:1], groups).spread("m"))


def test_what_was_not_run_or_on_other_cases_is_not_compared():
    one = cell([[1.0, 2.0]], ["a", "b"])
    assert wholes.compared("", one, None, "m", False) == []
    assert wholes.compared("", one, cell([[1.0, 2.0]], ["a", "c"]), "m", False) == []
    (claim,) = wholes.compared("", one, cell([[0.0, 0.0], [9.0, 9.0]], ["a", "b"]), "m", False)
    assert claim.difference.mean == 1.5  # of the seed that both have


def test_cells_are_made_of_their_runs_rows():
    table = [{"option": o, "choice": "x", "seed": s, "v": v} for o, s, v in (("a", 0, 1), ("b", 0, 5), ("a", 0, 2), ("a", 1, 3))]
    found = wholes.cells(table, ("option", "choice"), lambda rows: ({"n": len(rows), "v": [row["v"] for row in rows]}, ["g"]))
    assert {names: one.runs for names, one in found.items()} == {
        ("a", "x"): {"0": {"n": 2, "v": [1, 2]}, "1": {"n": 1, "v": [3]}},
        ("b", "x"): {"0": {"n": 1, "v": [5]}},
    }


@pytest.mark.parametrize("each", [1, 2])
def test_kid_under_weights_is_kid_of_the_draw_without_pairs_of_a_vector_and_itself(each):
    random = np.random.default_rng(0)
    real, made = random.normal(size=(7, 3)), random.normal(0.4, size=(7 * each, 3))
    weighted = kid_weighted(real, made)
    assert weighted(np.ones((1, 7)))[0] == pytest.approx(kid(real, made), rel=1e-9)
    w = random.multinomial(7, np.full(7, 1 / 7), size=2).astype(float)
    for weights, found in zip(w, weighted(w), strict=True):
        drawn = np.repeat(np.arange(7), weights.astype(int))
        of_made = np.concatenate([np.arange(i * each, (i + 1) * each) for i in drawn])

        def kernel(a, b):
            return (a @ b / 3 + 1) ** 3

        def within(vectors, index):
            return np.mean([kernel(vectors[i], vectors[j]) for i in index for j in index if i != j])

        between = np.mean([kernel(real[i], made[j]) for i in drawn for j in of_made])
        assert found == pytest.approx(within(real, drawn) + within(made, of_made) - 2 * between, rel=1e-9)
    with pytest.raises(ValueError, match="as many generated"):
        kid_weighted(real, made[:-1])
