"""Placed against equal steps, on a run whose answer is known: rows that differ only where timesteps do."""

import json

import pytest

import somite
from runs import tiny
from somite.analysis.placement import analyse_placement
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
    paths = analyse_placement(somite.load(run, device="cpu"), benefit, tmp_path / "out", steps=[3, 2])
    rows, told = read_rows(paths["rows"]), json.loads(paths["summary"].read_text())
    cases = {row["case"] for row in rows}
    assert len(rows) == 2 * 2 * len(cases)
    assert {(int(row["steps"]), row["placement"]) for row in rows} == {(n, name) for n in (2, 3) for name in ("equal", "benefit")}
    assert told["placed"]["3"][0] == 999
    assert all(400 <= t <= 501 for t in told["placed"]["3"][1:])
    for one in told["benefit minus equal"]:
        ours, theirs = (
            [float(r[one["metric"]]) for r in rows if (int(r["steps"]), r["placement"]) == (one["steps"], name)]
            for name in ("benefit", "equal")
        )
        groups = [r["group"] for r in rows if (int(r["steps"]), r["placement"]) == (one["steps"], "equal")]
        assert one["mean"] == pytest.approx(paired(ours, theirs, groups).difference.mean, abs=1e-5)
    assert paths["png"].stat().st_size > 5000


def test_a_placement_that_is_the_equal_one_makes_no_difference(run, benefit, tmp_path, monkeypatch):
    opened = somite.load(run, device="cpu")
    monkeypatch.setattr("somite.diffusion.methods.steps_by_benefit", lambda knots, schedule, steps: DDIM(steps).timesteps(len(schedule)))
    paths = analyse_placement(opened, benefit, tmp_path / "out", steps=[2])
    assert {one["mean"] for one in json.loads(paths["summary"].read_text())["benefit minus equal"]} == {0}


def test_bad_requests(run, benefit, tmp_path):
    opened = somite.load(run, device="cpu")
    with pytest.raises(InputError, match="numbers of steps from 2 on"):
        analyse_placement(opened, benefit, tmp_path / "out", steps=[1, 2])
    opened.place(benefit, 3)
    with pytest.raises(InputError, match="placed already"):
        analyse_placement(opened, benefit, tmp_path / "out")
