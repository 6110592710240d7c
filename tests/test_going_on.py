"""Evaluations and analyses that are stopped go on from the cases that are done; a bad input stops no others."""

import json

import numpy as np
import pytest
from PIL import Image

import somite
from runs import tiny
from somite.analysis.calibration import analyse_calibration
from somite.analysis.placement import analyse_placement
from somite.analysis.timesteps import analyse_timesteps
from somite.data.phantoms import write_phantoms
from somite.evaluation import evaluate
from somite.pipeline import Run


class Stop(Exception):
    """Somebody pressed Ctrl-C, say."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 20, (24, 24))
    return tiny(
        root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2", "--task.members=2", "--task.steps=[1,2]", "--data.crop=16"
    )


@pytest.fixture
def run(path):
    return somite.load(path, device="cpu")


def stopping(count):
    """A progress that stops before the case of that number."""

    def progress(items):
        for index, item in enumerate(items):
            if index == count:
                raise Stop
            yield item

    return progress


@pytest.fixture
def asked(monkeypatch):
    """The cases that are answered from now on."""
    seen, answer = [], Run.answer

    def counted(self, case, keep=False):
        seen.append(getattr(case, "id", None) or case.case.id)
        return answer(self, case, keep)

    monkeypatch.setattr(Run, "answer", counted)
    return seen


def test_an_evaluation_goes_on(run, tmp_path, asked):
    cases = [case.id for case in run.recipe.data.cases("test")]
    assert len(cases) == 4
    with pytest.raises(Stop):
        evaluate(run, "test", tmp_path / "stopped", stopping(3))
    assert set(asked) == set(cases[:3])
    asked.clear()
    found = evaluate(run, "test", tmp_path / "stopped")
    assert set(asked) == set(cases[3:])
    straight = evaluate(run, "test", tmp_path / "straight")
    for name in ("rows.csv", "reliability.csv", "votes.csv", "curves.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert json.dumps(found["metrics"]) == json.dumps(straight["metrics"])
    assert not list((tmp_path / "stopped").glob("*.parts"))


@pytest.mark.parametrize("change", [{"seed": 1}, {"members": 3}, {"steps": 3}, {"tolerance": 1.0}, {"firing": "expected"}], ids=str)
def test_what_was_done_with_another_sampling_is_not_taken(run, tmp_path, asked, change):
    with pytest.raises(Stop):
        evaluate(run, "test", tmp_path, stopping(3))
    asked.clear()
    evaluate(run.at(**change), "test", tmp_path)
    assert len(set(asked)) == 4


def test_a_file_that_was_mended_costs_one_case(run, tmp_path, asked):
    root = tmp_path / "data"
    write_phantoms(root, 20, (24, 24), seed=3)
    other = run.on(str(root))
    first = other.recipe.data.cases("test")[0]
    with pytest.raises(Stop):
        evaluate(other, "test", tmp_path / "out", stopping(3))
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(first.mask)
    asked.clear()
    evaluate(other, "test", tmp_path / "out")
    assert set(asked) == {first.id, other.recipe.data.cases("test")[3].id}


def test_the_analyses_go_on(run, tmp_path, asked):
    benefit = tmp_path / "benefit.csv"
    benefit.write_text("t,benefit\n0,0\n400,1\n999,0\n")
    analyses = {
        "calibration": (lambda out, progress: analyse_calibration([run], out, members=(1, 2), progress=progress), "calibration.csv"),
        "placement": (lambda out, progress: analyse_placement(run, benefit, out, steps=[2, 3], progress=progress), "placement.csv"),
    }
    for name, (analyse, table) in analyses.items():
        with pytest.raises(Stop):
            analyse(tmp_path / name, stopping(1))
        before = len(asked)
        analyse(tmp_path / name, iter)
        resumed = len(asked) - before
        analyse(tmp_path / f"{name}-straight", iter)
        assert resumed == len(asked) - before - resumed - 1
        assert (tmp_path / name / table).read_bytes() == (tmp_path / f"{name}-straight" / table).read_bytes()
        assert not list((tmp_path / name).glob("*.parts"))


def test_the_losses_by_timestep_go_on(run, tmp_path, monkeypatch):
    with pytest.raises(Stop):
        analyse_timesteps(run, "test", tmp_path / "stopped", count=4, draws=1, progress=stopping(2))
    assert len(list((tmp_path / "stopped" / "timesteps.parts").glob("*.json"))) == 2 + 1  # and what they are of
    analyse_timesteps(run, "test", tmp_path / "stopped", count=4, draws=1)
    analyse_timesteps(run, "test", tmp_path / "straight", count=4, draws=1)
    assert (tmp_path / "stopped" / "timesteps.csv").read_bytes() == (tmp_path / "straight" / "timesteps.csv").read_bytes()
