import csv
import json

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

import somite
from runs import tiny
from somite.analysis.raters import analyse_raters
from somite.cli import main
from somite.data.images import read_labels, write_png
from somite.data.phantoms import write_phantoms
from somite.data.raters import raters_of
from somite.errors import InputError
from somite.metrics.overlap import overlap
from somite.metrics.raters import collective_insight, diversity, ged, matched_iou
from somite.predict.ensemble import fused
from somite.predict.fusion import Mean


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Phantoms with three raters: one draws as the mask is, one wider, one tighter."""
    root = write_phantoms(tmp_path_factory.mktemp("phantoms"), 20, (32, 32))
    for path in (root / "masks").iterdir():
        mask = read_labels(path) > 0
        for rater, other in enumerate((mask, binary_dilation(mask), binary_erosion(mask))):
            write_png(root / "raters" / f"{path.stem}_{rater}.png", other.astype(np.uint8) * 255)
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    steps = ["--training.steps=10", "--training.validate=10", "--task.steps=null", "--data.raters=true"]
    return somite.load(tiny(root, tmp_path_factory.mktemp("run") / "run", *steps), device="cpu")


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_rows_are_the_measures_of_the_first_members(run, root, tmp_path):
    paths = analyse_raters(run.at(seed=4), tmp_path, members=(3, 1))
    assert all(path.stat().st_size > 500 for path in paths.values())
    rows = rows_of(paths["rows"])
    cases = run.recipe.data.cases("test")
    assert [row["case"] for row in rows] == [case.id for case in cases for _ in range(4)]
    assert [(row["source"], row["members"]) for row in rows[:4]] == [("run", "1"), ("run", "3"), ("majority", "1"), ("empty", "1")]
    members = run.predict(cases[0], members=3, seed=4).members[:, 0]
    raters, truth = raters_of(cases[0], root / "raters"), read_labels(cases[0].mask) > 0
    for row, count in zip(rows[:2], (1, 3), strict=True):
        masks = members[:count] >= 0.5
        expected = {
            "ged": ged(masks, raters),
            "hm_iou": matched_iou(masks, raters),
            **collective_insight(masks, raters),
            "diversity": diversity(masks),
            "rater_diversity": diversity(raters),
            "majority_dice": overlap(members[:count].mean(0) >= 0.5, truth)["dice"],
        }
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, abs=1e-5)


def test_the_command_takes_ensemble_sizes_as_members(run, tmp_path):
    assert main(["analyse", "raters", str(run.path), "--members", "3", "1", "--limit", "1", "--out", str(tmp_path)]) == 0
    assert [row["members"] for row in rows_of(tmp_path / "raters.csv") if row["source"] == "run"] == ["1", "3"]


def test_means_and_intervals_by_patient(run, tmp_path):
    paths = analyse_raters(run, tmp_path, members=(2,))
    rows = [float(row["ged"]) for row in rows_of(paths["rows"]) if row["source"] == "run"]
    (found,) = [row for row in rows_of(paths["table"]) if (row["source"], row["members"], row["metric"]) == ("run", "2", "ged")]
    assert float(found["mean"]) == pytest.approx(np.mean(rows), abs=1e-5)
    assert (found["cases"], found["groups"]) == ("4", "2")
    assert float(found["low"]) <= float(found["mean"]) <= float(found["high"])
    summary = json.loads(paths["summary"].read_text())
    assert summary["seed"] == 0 and summary["split"] == "test" and summary["empty_rule"] and summary["data"]["digest"]
    assert {row["metric"] for row in summary["table"]} >= {"ged", "hm_iou", "collective_insight", "diversity", "rater_diversity"}


def test_members_who_draw_as_the_raters_do_are_perfect(run, root, tmp_path, monkeypatch):
    def oracle(models, record, sampling, keep=False):
        return fused(record, raters_of(record.case, root / "raters")[: sampling.members, None].astype(np.float32), Mean(), keep)

    monkeypatch.setattr(run.recipe.task, "answer", oracle)
    table = {
        (r["source"], r["members"], r["metric"]): float(r["mean"]) for r in rows_of(analyse_raters(run, tmp_path, members=(1, 3))["table"])
    }
    assert table["run", "3", "ged"] == pytest.approx(0, abs=1e-6)
    assert [table["run", "3", name] for name in ("hm_iou", "collective_insight", "maximum_dice", "majority_dice")] == pytest.approx([1] * 4)
    assert table["run", "3", "diversity"] == table["run", "3", "rater_diversity"] > 0.1
    for name in ("ged", "hm_iou", "majority_dice"):  # the first rater is the mask in masks/
        assert table["run", "1", name] == table["majority", "1", name]
    assert 0 < table["majority", "1", "ged"] < table["empty", "1", "ged"]
    assert table["majority", "1", "majority_dice"] == 1 and table["empty", "1", "majority_dice"] == 0


def test_limit_takes_the_first_cases_and_one_patient_has_no_interval(run, tmp_path):
    paths = analyse_raters(run, tmp_path, members=(1,), limit=1, split="val")
    assert {row["case"] for row in rows_of(paths["rows"])} == {run.recipe.data.cases("val")[0].id}
    assert {row["low"] for row in rows_of(paths["table"])} == {""}


def test_what_cannot_be_analysed_is_said(run, root, tmp_path):
    for wrong in ({"members": ()}, {"members": (0, 2)}, {"limit": 0}):
        with pytest.raises(InputError, match="at least 1"):
            analyse_raters(run, tmp_path / "out", **wrong)
    other = run.on(str(write_phantoms(tmp_path / "other", 5, (32, 32))))
    with pytest.raises(InputError, match="raters does not exist"):
        analyse_raters(other, tmp_path / "out")
    other.recipe.data.labels = [0, 255]
    with pytest.raises(InputError, match="several classes"):
        analyse_raters(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
