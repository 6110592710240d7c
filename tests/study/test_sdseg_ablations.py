"""The grid of SDSeg's ablations: every cell is a recipe that differs from the base in one thing, and the study runs from nothing."""

import pytest
import yaml

from somite.data.phantoms import write_phantoms
from somite.engines import Pool
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.studies.sdseg_ablations import BASELINE, CELLS, STUDY, TWIN
from somite.study.run import run_study
from somite.study.study import Asked, study_of
from trees import flat


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(write_phantoms(tmp_path_factory.mktemp("phantoms"), 6, (32, 32)))


def grid(root, out, *only, budget="cpu"):
    return {(dict(job.keys)["option"], dict(job.keys)["choice"]): job for job in STUDY.jobs(Asked(root, out, budget, only=only))}


def test_every_cell_changes_one_thing(root, tmp_path):
    assert study_of("sdseg-ablations") is STUDY
    jobs = grid(root, tmp_path)
    assert {*jobs} == {*CELLS, TWIN, BASELINE}
    trees = {cell: flat(yaml.safe_load(job.recipe)) for cell, job in jobs.items()}
    base = trees[("base", "one step")]
    for cell, tree in trees.items():
        if cell in (BASELINE, TWIN, ("base", "one step")):
            continue
        differing = {key.split("init_args/")[-1] for key in {*base} | {*tree} if base.get(key) != tree.get(key)}
        expected = {
            "prediction": {"predicts", "rate", "power", "weight", "class_path"},
            "posterior": {"posterior"},
            "scale": {"scale"},
            "encoder": {"encoder_training"},
            "fusion": {"fusion"},
            "latent channels": {"latent_channels", "weights/source", "encoder_start/weights"},
            "decoder": {"decoder/source"},
        }[cell[0]]
        assert differing <= expected | {key for key in differing if cell[0] == "prediction" and ("terms" in key or "timesteps" in key)}, (
            cell
        )
        assert differing
    shared = ("/training/steps", "/training/batch", "/training/seed", "/data/root", "/data/preprocess/size/0")
    for key in shared:
        assert len({tree[key] for tree in trees.values()}) == 1
    with pytest.raises(InputError, match="no such cell"):
        grid(root, tmp_path, "nothing")
    with pytest.raises(InputError, match="--budget week"):
        grid(root, tmp_path, budget="week")


@pytest.mark.slow
def test_it_runs_from_nothing_and_goes_on(root, tmp_path):
    asked = Asked(root, tmp_path, "smoke", only=("base", "decoder"))
    told = run_study(STUDY, asked, Pool(1), lambda _: None)
    rows = read_rows(tmp_path / "rows.csv")
    cells = {(row["option"], row["choice"], row["evaluations"]) for row in rows}
    assert cells == {
        ("base", "one step", "1"),
        ("base", "one step", "2"),
        ("steps", "2", "2"),
        ("decoder", "tiny", "1"),
        ("decoder", "tiny", "2"),
    }
    assert "the base is more accurate than decoder tiny" in told
    verdict = (tmp_path / "verdict.md").read_text()
    assert "2 steps are more accurate than one" in verdict
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert sorted(path.name for path in tmp_path.glob("autoencoder-*")) == ["autoencoder-4", "autoencoder-4.yaml"]
    said = []
    run_study(STUDY, asked, Pool(1), said.append)
    assert said[-1] == "2 jobs, 2 done already"
    assert read_rows(tmp_path / "rows.csv") == rows


@pytest.mark.slow
def test_the_whole_grid(root, tmp_path):
    run_study(STUDY, Asked(root, tmp_path, "smoke"), Pool(2), lambda _: None)
    rows = read_rows(tmp_path / "rows.csv")
    assert {(row["option"], row["choice"]) for row in rows} == {*CELLS, TWIN, BASELINE, ("steps", "2")}
