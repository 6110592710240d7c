"""Studies: the grid, its jobs on three engines, lost workers, and verdicts that follow from the rows."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from somite.data.phantoms import write_phantoms
from somite.engines import Pool, Ray, Submitit
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.recipe import build, parse
from somite.studies.fair_trial import BUDGETS, STUDY, at_equal_cost, by_velocity
from somite.studies.fair_trial import of_paper as claims
from somite.study import jobs as jobs_module
from somite.study import verdict
from somite.study.jobs import ROWS, collected, work
from somite.study.run import run_study
from somite.study.study import Asked, study_of
from somite.study.verdict import SHOWN, mean, picked, seed_spread
from somite.types import Output, right
from victims import killed_once


def jobs(data, out, budget, seeds=None, only=(), threads=1, steps=None):
    return STUDY.jobs(Asked(data, out, budget, seeds, tuple(only), threads, steps))


def fair_trial_study(data, out, engine, budget, only=(), say=print):
    assert study_of("fair-trial") is STUDY
    return run_study(STUDY, Asked(data, out, budget, only=tuple(only)), engine, say)


def table(rows):
    return verdict.table(rows, STUDY.columns, SHOWN)


CELLS = ["MedSegDiffNCA/one-step", "MedSegDiffNCA/feed-forward"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), 10, (32, 32))


def test_the_grid_is_every_network_by_every_method_and_the_baselines(root, tmp_path):
    grid = jobs(str(root), tmp_path, "cpu")
    assert len(grid) == (4 * 4 + 3) * 3
    assert len({job.folder for job in grid}) == len(grid)


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_cell_is_a_recipe_and_twins_share_their_network(root, tmp_path, budget):
    trees = {job.folder.name: yaml.safe_load(job.recipe) for job in jobs(str(root), tmp_path, budget, seeds=[0])}
    for network in ("ensemdiff", "segdiff", "medsegdiff", "medsegdiffnca"):
        methods = [trees[f"{network}-{method}-0"]["method"] for method in ("diffusion", "feed-forward", "one-step", "v-diffusion")]
        assert all(m["init_args"]["network"] == methods[0]["init_args"]["network"] for m in methods)
        assert [m["class_path"].rsplit(".", 1)[1] for m in methods] == ["Diffusion", "FeedForward", "Diffusion", "Diffusion"]
        assert "schedule" not in methods[1]["init_args"]
    own = trees.pop("nnu-net-feed-forward-0")  # its intensities, augmentation and optimiser are its own
    shared = [{key: tree[key] for key in ("data", "task")} | {"steps": tree["training"]["steps"]} for tree in trees.values()]
    assert all(part == shared[0] for part in shared)
    assert own["task"] == shared[0]["task"]
    assert own["data"]["root"] == shared[0]["data"]["root"]
    assert own["data"]["preprocess"]["size"] == shared[0]["data"]["preprocess"]["size"]
    assert (own["training"]["steps"], own["training"]["optimizer"]) == (shared[0]["steps"], "sgd")
    trees["nnu-net"] = own
    for name, tree in trees.items():
        if budget == "smoke":
            path = tmp_path / f"{name}.yaml"
            path.write_text(yaml.safe_dump(tree))
            build(parse(path))


def test_v_diffusion_is_trained_on_the_error_of_v(root, tmp_path):
    (job,) = jobs(str(root), tmp_path, "smoke", seeds=[0], only=["EnsemDiff/v-diffusion"])
    path = tmp_path / "recipe.yaml"
    path.write_text(job.recipe)
    method = build(parse(path)).method
    ex = method.corrupt((torch.rand(3, 1, 8, 8) > 0.5).long(), torch.tensor([2, 400, 990]), torch.randn(3, 1, 8, 8))
    v = torch.randn(3, 1, 8, 8)
    loss = method.total(method.read(Output(v), ex.x_t, ex.t), ex)["loss"]
    alpha, sigma = (right(c, v) for c in method.schedule(ex.t))
    torch.testing.assert_close(loss, ((v - (alpha * ex.eps - sigma * ex.x0)) ** 2).mean(), rtol=1e-4, atol=1e-5)


def test_bad_requests(root, tmp_path):
    with pytest.raises(InputError, match="choose from smoke, cpu, paper"):
        jobs(str(root), tmp_path, "weeks")
    with pytest.raises(InputError, match="--threads 0"):
        jobs(str(root), tmp_path, "cpu", threads=0)
    with pytest.raises(InputError, match="--workers 0"):
        Pool(0)
    assert len(jobs(str(root), tmp_path, "cpu", seeds=[1, 1], only=["DynUNet"])) == 1
    with pytest.raises(InputError, match="--steps 0"):
        jobs(str(root), tmp_path, "cpu", steps=0)
    (longer,) = jobs(str(root), tmp_path, "cpu", seeds=[0], only=["DynUNet"], steps=7)
    assert yaml.safe_load(longer.recipe)["training"]["steps"] == 7
    with pytest.raises(InputError, match="no such cell"):
        jobs(str(root), tmp_path, "cpu", only=["UNet"])


def test_a_study_runs_resumes_and_tells_its_verdict(root, tmp_path):
    said = []
    text = fair_trial_study(str(root), tmp_path, Pool(1), "smoke", only=CELLS, say=said.append)
    rows = read_rows(tmp_path / "rows.csv")
    keys = [(r["network"], r["method"], r["seed"], r["members"], r["scaling"], r["case"]) for r in rows]
    cases = {r["case"] for r in rows}
    assert len(keys) == len(set(keys)) == 2 * 2 * 2 * len(cases)  # cells, members, scalings
    assert text == ""  # no diffusion run, so no claim of the paper can be judged
    assert "| MedSegDiffNCA | one-step | 2 | 2 | temperature | 1 |" in (tmp_path / "verdict.md").read_text()
    assert len(read_rows(tmp_path / "reliability.csv")) == 2 * 2 * 15 * len(cases)
    votes = read_rows(tmp_path / "votes.csv")  # of two members: nobody, one or both
    assert len(votes) == 2 * 3 * len(cases)
    assert sum(int(row["pixels"]) for row in votes) == 2 * 32 * 32 * len(cases)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/weights.safetensors")}
    fair_trial_study(str(root), tmp_path, Pool(1), "smoke", only=CELLS, say=said.append)
    assert said[-1] == "2 jobs, 2 done already"
    fair_trial_study(str(root), tmp_path, Pool(1), "smoke", only=CELLS[:1], say=said.append)
    assert said[-1] == "1 jobs, 1 done already"
    assert read_rows(tmp_path / "rows.csv") == rows  # a part of the study leaves the other part's rows alone
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/weights.safetensors")}


def fails_by(error):
    def train(*_):
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "said"), [(InputError("the loss is NaN"), "the loss is NaN"), (RuntimeError("out of memory"), "RuntimeError: out of memory")]
)
def test_a_job_that_fails_stops_no_other(error, said, root, tmp_path, monkeypatch):
    class Here:
        def run(self, work, jobs):
            return map(work, jobs)

    own = jobs_module.train
    monkeypatch.setattr(
        jobs_module, "train", lambda recipe, folder, name: (fails_by(error) if "one-step" in folder.name else own)(recipe, folder, name)
    )
    with pytest.raises(InputError, match=f"1 of 2 jobs failed, run again .* medsegdiffnca-one-step-0: {said}"):
        fair_trial_study(str(root), tmp_path, Here(), "smoke", only=CELLS)
    assert "Traceback" in (tmp_path / "medsegdiffnca-one-step-0" / "error.txt").read_text()
    assert {row["method"] for row in read_rows(tmp_path / "rows.csv")} == {"feed-forward"}
    monkeypatch.undo()
    fair_trial_study(str(root), tmp_path, Here(), "smoke", only=CELLS)
    assert {row["method"] for row in read_rows(tmp_path / "rows.csv")} == {"feed-forward", "one-step"}


def kill_the_victim(note: Path) -> threading.Thread:
    def wait_and_kill():
        while not note.exists() or not note.read_text():
            time.sleep(0.1)
        os.kill(int(note.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


ENGINES = {"pool": lambda folder: Pool(2), "ray": lambda folder: Ray(2), "submitit": lambda folder: Submitit(folder, "local")}


@pytest.mark.slow  # Ray yields to whatever else runs, so this test wants the machine for itself: .ci/run does it last
@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["pool", "ray"])
def test_a_killed_worker_costs_time_and_no_row(engine, root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    grid = jobs(str(root), tmp_path, "smoke", only=CELLS)
    killer = kill_the_victim(tmp_path / "victim")
    done = list(ENGINES[engine](tmp_path).run(killed_once, grid))
    killer.join(5)
    assert not killer.is_alive()
    assert sorted(done) == sorted(job.folder for job in grid)
    rows = collected(grid, ROWS)
    keys = [(r["method"], r["members"], r["scaling"], r["case"]) for r in rows]
    assert len(keys) == len(set(keys)) == 2 * 2 * 2 * len({r["case"] for r in rows})


def alive(pid):
    return Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc who lives")
def test_no_worker_outlives_a_killed_study(tmp_path):
    note = tmp_path / "pid"
    program = "import sys, pathlib; from victims import linger; from somite.engines import Pool\nif __name__ == '__main__':\n"
    program += "    list(Pool(1).run(linger, [pathlib.Path(sys.argv[1])]))"
    (tmp_path / "study.py").write_text(program)
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    study = subprocess.Popen([sys.executable, str(tmp_path / "study.py"), str(note)], env=path)
    wait_until(lambda: note.exists() and note.read_text())
    worker = int(note.read_text())
    assert alive(worker)
    study.kill()
    study.wait()
    wait_until(lambda: not alive(worker))


def wait_until(true, seconds=200):  # a process that imports torch beside other work
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_submitit_runs_the_same_jobs(root, tmp_path):
    (job,) = jobs(str(root), tmp_path, "smoke", only=CELLS[1:])
    assert list(Submitit(tmp_path / "slurm", "local").run(work, [job])) == [job.folder]


def fake(network, method, members, scaling, ece, dice, seed=0, steps=1):
    """Rows whose ECE and Dice are given case by case."""
    told = {"network": network, "method": method, "members": members, "evaluations": members * steps, "scaling": scaling, "seed": seed}
    return [
        {**told, "case": f"c{i}", "group": f"g{i // 2}", "ece": e, "dice": d, "ece_foreground": e, "nll": e}
        for i, (e, d) in enumerate(zip(ece, dice, strict=True))
    ]


def test_claims_follow_from_paired_differences():
    rng = np.random.default_rng(0)
    base = rng.random(40)
    rows = [
        *fake("SegDiff", "diffusion", 1, "raw", base, base),
        *fake("SegDiff", "diffusion", 5, "raw", base - 0.2 + 0.01 * rng.random(40), base),
        *fake("SegDiff", "feed-forward", 1, "raw", base, base),
        *fake("SegDiff", "feed-forward", 1, "temperature", base - 0.3, base),
        *fake("SegFormer", "feed-forward", 1, "raw", base, base + 0.02 * rng.standard_normal(40)),
    ]
    verdicts = {claim.text.split(": ")[1]: claim for claim in claims(rows)}
    raw, scaled, dice = verdicts.values()
    assert (raw.verdict, scaled.verdict, dice.verdict) == ("holds", "does not hold", "undecided")
    assert raw.difference.mean == pytest.approx(-0.195, abs=0.01)
    assert replace(raw, adjusted=0.2).verdict == "undecided"  # six groups give short intervals, but no small p
    few = [replace(raw, difference=replace(raw.difference, low=float("nan")))]
    assert few[0].verdict.startswith("undecided")


def test_what_v_prediction_changes():
    rng = np.random.default_rng(0)
    base = rng.random(40)
    rows = [
        *fake("SegDiff", "diffusion", 5, "raw", base, base - 0.2),
        *fake("SegDiff", "v-diffusion", 5, "raw", base - 0.1 - 0.01 * rng.random(40), base - 0.05 * rng.random(40)),
        *fake("SegDiff", "feed-forward", 1, "raw", base, base),
        *fake("SegDiff", "feed-forward", 1, "temperature", base - 0.3, base),
    ]
    assert [claim.verdict for claim in by_velocity(rows)] == ["holds", "holds", "does not hold", "does not hold"]
    assert by_velocity(rows[:40]) == []


def curve(network, losses, seed=0):
    """Rows of (case, t): losses (cases, timesteps)."""
    return [
        {"network": network, "method": "diffusion", "seed": seed, "case": f"c{i}", "group": f"g{i}", "t": t, "loss_eps": loss}
        for i, row in enumerate(losses)
        for t, loss in enumerate(row)
    ]


def test_a_loss_with_a_peak_inside_is_told_from_one_without():
    noise = 0.01 * np.random.default_rng(0).standard_normal((30, 5))
    rows = [
        *curve("SegDiff", noise + np.array([0.1, 0.3, 0.5, 0.2, 0.05])),
        *curve("EnsemDiff", noise + np.array([0.9, 0.5, 0.3, 0.2, 0.1])),
    ]
    verdicts = {claim.text.split(":")[0]: claim for claim in claims([], rows)}
    assert verdicts["SegDiff"].verdict == "holds"
    assert verdicts["SegDiff"].difference.mean == pytest.approx(0.4, abs=0.01)
    assert verdicts["EnsemDiff"].verdict == "does not hold"


def test_at_equal_cost_as_many_members_as_steps():
    rng = np.random.default_rng(0)
    base = rng.random(40)
    rows = [
        *fake("SegDiff", "diffusion", 1, "raw", base, base, steps=10),
        *fake("SegDiff", "one-step", 1, "raw", base, base),
        *fake("SegDiff", "one-step", 10, "raw", base - 0.1 + 0.01 * rng.random(40), base + 0.1 * rng.standard_normal(40)),
    ]
    dice, ece = at_equal_cost(rows)
    assert (dice.verdict, ece.verdict) == ("undecided", "holds")
    raw = [stats.wilcoxon(value.reshape(20, 2).mean(1)).pvalue for value in (differences(rows, "dice"), differences(rows, "ece"))]
    assert [dice.adjusted, ece.adjusted] == pytest.approx(stats_holm(raw))


def differences(rows, metric):
    cells = {(r["method"], r["members"], r["case"]): r[metric] for r in rows}
    return np.array([cells["one-step", 10, f"c{i}"] - cells["diffusion", 1, f"c{i}"] for i in range(40)])


def stats_holm(p):
    """Two p-values: the smaller is doubled, the other at least that (Holm 1979)."""
    low = min(1, 2 * min(p))
    return [low if value == min(p) else max(low, value) for value in p]


def test_the_spread_over_seeds_is_that_of_their_means():
    rng = np.random.default_rng(0)
    each = rng.random((3, 30))
    rows = [row for seed in range(3) for row in fake("SegDiff", "diffusion", 5, "raw", each[seed], each[seed], seed)]
    assert seed_spread(rows, "dice") == pytest.approx(each.mean(1).std(ddof=1))
    assert f"| {each.mean(1).std(ddof=1):.4f} |" in table(rows)


def test_seeds_are_averaged_before_cases_and_the_table_has_a_line_a_cell():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 30))
    rows = [*fake("SegDiff", "diffusion", 5, "raw", first, first), *fake("SegDiff", "diffusion", 5, "raw", second, second, seed=1)]
    found = mean(picked(rows, None, "raw", network="SegDiff", method="diffusion"), "dice")
    assert found.mean == pytest.approx((first + second).mean() / 2)
    assert found.cases == 30
    spread = stats.sem([(a + b) / 2 for a, b in zip(first, second, strict=True)])
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.35)  # over cases in pairs
    assert table(rows).count("\n") == 2
