"""The trial of cells beside U-Nets: what is equal for all is equal, the steps of equal time follow from what a step takes, and it runs."""

import json

import pytest
import torch
import yaml

from somite.data.phantoms import write_phantoms
from somite.engines import Pool
from somite.evaluation import read_rows
from somite.recipe import build, parse
from somite.studies.compact_trial import BUDGETS, CELLS, GRID, OPPONENTS, STEPS, STUDY, TIME
from somite.study.run import run_study
from somite.study.study import Asked, study_of


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(write_phantoms(tmp_path_factory.mktemp("phantoms"), 6, (32, 32)))


@pytest.fixture
def grid(root, tmp_path):
    """At a pace that is given, and so is not measured."""
    paces = {", ".join(cell): 0.05 * (place + 1) for place, cell in enumerate(GRID)}
    (tmp_path / "pace.json").write_text(json.dumps(paces))
    jobs = STUDY.jobs(Asked(root, tmp_path, "cpu", seeds=[3]))
    return {tuple(value for _, value in job.keys[:3]): yaml.safe_load(job.recipe) for job in jobs}


def test_time_or_steps_are_equal(grid):
    assert study_of("compact-trial") is STUDY
    assert {*grid} == {(*cell, equal) for cell in GRID for equal in (TIME, STEPS)}
    for place, cell in enumerate(GRID):
        assert grid[(*cell, TIME)]["training"]["steps"] == round(BUDGETS["cpu"].seconds / (0.05 * (place + 1)))
        assert grid[(*cell, STEPS)]["training"]["steps"] == BUDGETS["cpu"].steps


def test_all_else_is_equal(grid):
    first = grid[(*CELLS, STEPS)]
    for (_, method, equal), tree in grid.items():
        assert tree["data"] == first["data"] and tree["task"] == first["task"]
        assert tree["method"]["init_args"]["terms"] == first["method"]["init_args"]["terms"]
        timed = {"steps", "validate", "warmup"} if equal == TIME else set()
        assert {k: v for k, v in tree["training"].items() if k not in timed} == {
            k: v for k, v in first["training"].items() if k not in timed
        }
        if method == "one step":
            arguments, expected = ({**one["method"]["init_args"], "network": None} for one in (tree, first))
            assert arguments == expected


def test_cells_are_compact_and_opponents_are_not_smaller_than_they_say(grid, tmp_path):
    weights = {}
    for cell in (CELLS, *OPPONENTS):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(grid[(*cell, STEPS)]))
        weights[cell] = sum(p.numel() for p in build(parse(path)).method.network.parameters())
    assert list(weights.values()) == [61_635, 68_073, 66_209, 1_942_337]


@pytest.mark.slow
def test_it_runs_and_its_pace_is_kept(root, tmp_path):
    asked = Asked(root, tmp_path, "smoke")
    threads = torch.get_num_threads()
    told = run_study(STUDY, asked, Pool(2), lambda _: None)
    assert torch.get_num_threads() == threads
    assert "more accurate (Dice) than narrow U-Net, one step" in told
    rows = read_rows(tmp_path / "rows.csv")
    assert {(row["network"], row["method"], row["equal"]) for row in rows} == {(*cell, equal) for cell in GRID for equal in (TIME, STEPS)}
    paces = json.loads((tmp_path / "pace.json").read_text())
    assert paces.keys() == {", ".join(cell) for cell in GRID} and min(paces.values()) > 0
    said = []
    run_study(STUDY, asked, Pool(1), said.append)
    assert said[-1] == "12 jobs, 12 done already"
    assert json.loads((tmp_path / "pace.json").read_text()) == paces
    assert (tmp_path / "figure.png").stat().st_size > 5000
