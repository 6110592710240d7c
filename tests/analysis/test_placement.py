"""Placed against equal steps, on a run whose answer is known: rows that differ only where timesteps do."""

import json

import numpy as np
import pytest

import somite
from runs import tiny
from somite.analysis.placement import analyse_placement, placed
from somite.baselines.folds import fold_ensemble
from somite.data.phantoms import write_phantoms
from somite.diffusion.samplers import DDIM
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.metrics.intervals import paired


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("phantoms"), 20, (32, 32))
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=4", "--training.validate=4", "--task.steps=null")


@pytest.fixture
def benefit(tmp_path):
    """All of it between t = 400 and 500."""
    (tmp_path / "benefit.csv").write_text("t,benefit\n0,0\n399,0\n400,1\n500,1\n501,0\n999,0\n")
    return tmp_path / "benefit.csv"


def test_rows_differences_and_plans(run, benefit, tmp_path):
    paths = analyse_placement(somite.load(run, device="cpu").at(members=1), benefit, tmp_path / "out", steps=[3, 2])
    rows, told = read_rows(paths["rows"]), json.loads(paths["summary"].read_text())
    cases = {row["case"] for row in rows}
    assert len(rows) == 2 * 2 * len(cases)
    assert {(int(row["steps"]), row["placement"]) for row in rows} == {(n, name) for n in (2, 3) for name in ("equal", "benefit")}
    ((first, *others),) = told["placed"]["3"]
    assert first == 999
    assert all(400 <= t <= 501 for t in others)
    for one in told["benefit minus equal"]:
        ours, theirs = (
            [float(r[one["metric"]]) for r in rows if (int(r["steps"]), r["placement"]) == (one["steps"], name)]
            for name in ("benefit", "equal")
        )
        groups = [r["group"] for r in rows if (int(r["steps"]), r["placement"]) == (one["steps"], "equal")]
        assert one["mean"] == pytest.approx(paired(ours, theirs, groups).difference.mean, abs=1e-5)
    assert paths["png"].stat().st_size > 5000


def test_a_placement_that_is_the_equal_one_makes_no_difference(run, benefit, tmp_path, monkeypatch):
    opened = somite.load(run, device="cpu").at(members=1)
    monkeypatch.setattr("somite.analysis.placement.steps_by_benefit", lambda knots, schedule, steps: DDIM(steps).timesteps(len(schedule)))
    paths = analyse_placement(opened, benefit, tmp_path / "out", steps=[2])
    assert {one["mean"] for one in json.loads(paths["summary"].read_text())["benefit minus equal"]} == {0}


@pytest.fixture(scope="module")
def folds(run, tmp_path_factory):
    out, root = tmp_path_factory.mktemp("folds"), somite.load(run, device="cpu").recipe.data.root
    steps = ["--training.steps=4", "--training.validate=4", "--task.steps=null"]
    return [tiny(root, out / f"fold{k}", *steps, f"--data.fold={k}", f"--training.seed={k}") for k in (0, 1)]


def test_all_folds_take_the_steps_that_were_placed(folds, benefit, tmp_path):
    paths = analyse_placement(fold_ensemble(folds, device="cpu").at(members=1), benefit, tmp_path / "out", steps=[3], limit=2)
    told = json.loads(paths["summary"].read_text())
    singles = [placed(somite.load(path, device="cpu"), benefit, 3) for path in folds]
    assert told["placed"]["3"] == [one.method.placed for one in singles]
    assert told["folds"] == [str(folds[1])]
    for row in (row for row in read_rows(paths["rows"]) if row["placement"] == "benefit"):
        (case,) = [case for case in singles[0].recipe.data.cases("test") if case.id == row["case"]]
        p = np.mean([one.predict(case, members=1).probability[0] for one in singles], axis=0)
        truth = singles[0].recipe.data.read(case).truth
        assert float(row["brier"]) == pytest.approx(((p - truth) ** 2).mean(), rel=1e-4)


def test_folds_are_not_scored_on_cases_that_one_has_seen(folds, benefit, tmp_path):
    with pytest.raises(InputError, match=r"case\d+ is a (train|val) case of .*fold0"):
        analyse_placement(fold_ensemble(folds, device="cpu"), benefit, tmp_path / "out", split="val", progress=never)


def never(cases):
    raise AssertionError("work has begun")


def test_bad_requests(run, benefit, tmp_path):
    opened = somite.load(run, device="cpu")
    with pytest.raises(InputError, match="numbers of steps from 2 on"):
        analyse_placement(opened, benefit, tmp_path / "out", steps=[1, 2])
    for name, text in {"flat": "0,0\n999,0\n", "long": "0,0\n1200,1\n"}.items():
        (tmp_path / f"{name}.csv").write_text("t,benefit\n" + text)
    for path, steps, words in (("flat", [2], "no benefit"), ("long", [2], "1200"), ("benefit", [2, 1001], "1 to 1000")):
        with pytest.raises(InputError, match=words):
            analyse_placement(opened, tmp_path / f"{path}.csv", tmp_path / "out", steps=steps, progress=never)
    with pytest.raises(InputError, match="placed already"):
        analyse_placement(placed(opened, benefit, 3), benefit, tmp_path / "out")
