"""Cohorts: every case once, by one process or by workers, one of them killed; what failed is told, and tried again."""

import csv
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

import somite
from runs import tiny
from somite import cohort
from somite.cli import main
from somite.cohort import answered
from somite.data.phantoms import write_phantoms
from somite.data.sources import find_inputs
from somite.engines import Engine, Pool, Ray
from victims import answer_killed_once

ENGINES = {"pool": lambda: Pool(2), "ray": lambda: Ray(2)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2")


class Here(Engine):
    """No processes: the jobs one after the other, the last first."""

    def run(self, work, jobs):
        self.jobs = list(jobs)
        for job in reversed(self.jobs):
            yield work(job)


def table(out):
    with (out / "cases.csv").open() as file:
        return {row["case"]: (row["state"], row["reason"]) for row in csv.DictReader(file)}


def files(out):
    return {path.name: path.read_bytes() for path in out.glob("*.png")}


def predicted(run, inputs, out, *options):
    return main(["predict", str(run), *map(str, inputs), "--out", str(out), "--save", "mask,members", *options])


def test_what_failed_is_in_the_table_and_tried_again(root, run, tmp_path, capsys):
    inputs = tmp_path / "scans"
    shutil.copytree(root / "images", inputs)
    good = (inputs / "case003.png").read_bytes()
    (inputs / "case003.png").write_bytes(good[: len(good) // 2])
    out = tmp_path / "out"
    assert predicted(run, [inputs], out, "--members", "2") == 2
    assert "1 of 6 inputs could not be answered" in capsys.readouterr().err
    found = table(out)
    assert {case for case, (state, _) in found.items() if state == "done"} == {f"case00{n}" for n in (0, 1, 2, 4, 5)}
    assert found["case003"][0] == "failed"
    assert "case003.png" in found["case003"][1]
    (inputs / "case003.png").write_bytes(good)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert predicted(run, [inputs], out, "--members", "2") == 0
    assert {state for state, _ in table(out).values()} == {"done"}
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())  # each case once


def test_the_table_keeps_cases_of_calls_before(root, run, tmp_path):
    for part in ((0, 1), (4,)):
        assert predicted(run, [root / "images" / f"case00{n}.png" for n in part], tmp_path) == 0
    assert [*table(tmp_path)] == ["case000", "case001", "case004"]


def test_a_worker_is_told_all_that_an_answer_depends_on(root, run, tmp_path, monkeypatch):
    """Members, seed, folds and other sampling; and it may be at home in another folder."""
    monkeypatch.chdir(root)
    cases = find_inputs([Path("images")])
    opened = somite.load(run, trust=True).at(2, 5, steps=2)
    opened = cohort.replace(opened, folds=(somite.load(run, trust=True).at(2, 6, steps=1),))
    engine = Here()
    for out, workers in ((tmp_path / "here", None), (tmp_path / "there", engine)):
        found = answered(opened, cases, out, ["mask", "members"], {}, workers)
        assert [one.case for one in found] == [case.id for case in cases]
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "there")) == 6 * (1 + 4)
    assert all(path.is_absolute() for job in engine.jobs for path in (*job.case.images, job.out, job.opening.runs[0][0]))


@pytest.mark.slow  # workers import torch anew, and Ray takes long to start
@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_worker_costs_time_and_no_case(engine, root, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setattr(cohort, "work", answer_killed_once)
    note = tmp_path / "victim"

    def kill():
        while not (note.exists() and note.read_text()):
            time.sleep(0.2)
        os.kill(int(note.read_text()), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    opened, cases = somite.load(run, trust=True).at(1), find_inputs([root / "images"])
    found = answered(opened, cases, tmp_path / "there", ["mask"], {}, ENGINES[engine]())
    assert {one.state for one in found} == {"done"}
    assert note.exists()
    answered(opened, cases, tmp_path / "here", ["mask"], {})
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert [*table(tmp_path / "there")] == [case.id for case in cases]
