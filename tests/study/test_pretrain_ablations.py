"""The grid of the pretraining study: every cell differs from the base in what its name says; the whole of it runs from nothing."""

import json

import pytest
import yaml

from somite.data.phantoms import write_phantoms
from somite.engines import Pool
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.studies import pretrain_ablations
from somite.studies.pretrain_ablations import AUTOMATA, BASE, CELLS, STUDY
from somite.study.run import run_study
from somite.study.study import Asked, study_of
from trees import differing


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(write_phantoms(tmp_path_factory.mktemp("volumes"), 12, (12, 10, 8), 1, classes=2))


@pytest.fixture(scope="module")
def jobs(root, tmp_path_factory):
    return {job.keys[:3]: job for job in STUDY.jobs(Asked(root, tmp_path_factory.mktemp("out"), "smoke"))}


def tree(jobs, option, choice, labels="2"):
    return yaml.safe_load(jobs[(("option", option), ("choice", choice), ("labels", labels))].recipe)


def test_each_cell_changes_one_thing(jobs):
    assert study_of("pretrain-ablations") is STUDY
    base = tree(jobs, *BASE)
    expected = {
        ("coordinates", "none"): {"backbone/source"},
        ("timesteps", "60"): {"timesteps/0", "timesteps/1", "timesteps/2"},
        ("maps", "both"): {"side"},
        ("noise", "none"): {"noise"},
        ("noise", "three draws"): {"draws"},
        ("together", "mean"): {"together"},
        ("head", "linear"): {"head"},
        ("head", "coordinates too"): {"placed"},
        ("pretext", "random"): {"afresh"},
    }
    for cell, changes in expected.items():
        assert differing(tree(jobs, *cell), base) == changes, cell
    scratch = differing(tree(jobs, "use", "from scratch"), tree(jobs, "use", "fine-tuned"))
    assert scratch == {"afresh", "thaw"}
    baseline = tree(jobs, "baseline", "DynUNet")
    alike = ("crop", "foreground_rate", "labels", "splits", "root")
    assert all(baseline["data"][name] == base["data"][name] for name in alike)
    assert baseline["training"]["steps"] == tree(jobs, "use", "from scratch")["training"]["steps"]


def test_pretrainings_differ_in_what_they_are_called(jobs):
    base = tree(jobs, "pretraining", "diffusion", "")
    assert differing(tree(jobs, "pretraining", "scrambled", ""), base) == {"/data/coordinates/class_path"}
    assert differing(tree(jobs, "pretraining", "none", ""), base) == {"/data/coordinates/class_path", "coordinates"}
    restored = differing(tree(jobs, "pretraining", "restored", ""), base)
    assert not {key for key in restored if key.startswith(("/data", "/training"))}
    stages = {key[1][1]: job.stage for key, job in jobs.items() if key[0][1] == "pretraining"}
    assert (
        stages["positions"]
        < stages["learned"]
        == stages["diffusion"]
        < jobs[(("option", "base"), ("choice", "frozen"), ("labels", "2"))].stage
    )


def test_who_is_labelled_is_drawn_by_seed_and_few_are_among_many(root, tmp_path):
    asked = Asked(root, tmp_path, "smoke", seeds=[0, 1, 2, 3])
    STUDY.prepare(asked)
    lists = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "labelled").iterdir()}
    few, all_ = lists["2-0"], lists["all-0"]
    assert len(few["train"]) == 2 and {*few["train"]} < {*all_["train"]}
    assert few["test"] == all_["test"] and len(few["val"]) == 1
    assert len({tuple(lists[f"2-{seed}"]["train"]) for seed in range(4)}) > 1
    with pytest.raises(InputError, match="takes up to 10"):
        STUDY.prepare(Asked(root, tmp_path, "cpu"))


def test_cells_that_are_not_there_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="no such cell"):
        STUDY.jobs(Asked(root, tmp_path, "smoke", only=("magic",)))


@pytest.mark.slow
def test_it_runs_from_nothing(root, tmp_path):
    some = ("base", "coordinates/learned", "pretext", "use", "baseline")
    told = run_study(STUDY, Asked(root, tmp_path, "smoke", only=some), Pool(2))
    assert "beginning at random" in told
    rows = read_rows(tmp_path / "rows.csv")
    wanted = {cell for cell in CELLS if cell[0] in some or "/".join(cell) in some}
    assert {(row["option"], row["choice"]) for row in rows} == wanted
    assert {row["labels"] for row in rows if row["choice"] == "frozen"} == {"2", "0"}
    assert {*AUTOMATA} <= {row["choice"] for row in rows}
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert pretrain_ablations.STUDY.title in (tmp_path / "verdict.md").read_text()
