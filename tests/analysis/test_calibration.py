import csv
from dataclasses import replace

import numpy as np
import pytest
from torch import as_tensor
from torchmetrics.functional.classification import binary_calibration_error

import somite
from runs import tiny
from somite.analysis.calibration import Fused, analyse_calibration, of_run, scored
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.metrics.calibration import boundary_band


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("phantoms"), 10, (32, 32))
    folder = tmp_path_factory.mktemp("runs")
    steps = ["--training.steps=60", "--training.validate=60", "--training.batch=4", "--training.rate=5e-3", "--task.steps=null"]
    forward = [
        "--method=somite.diffusion.methods.FeedForward",
        "--method.network=somite.networks.medsegdiffnca.MedSegDiffNCA",
        "--method.network.cbam=false",
        "--method.terms={mask: {class_path: somite.diffusion.terms.DiceCE}}",
    ]
    tiny(root, folder / "diffusion", *steps)
    tiny(root, folder / "forward", *forward, *steps)
    return [somite.load(folder / name, device="cpu") for name in ("diffusion", "forward")]


def test_rows_figure_and_the_numbers_in_them(runs, tmp_path):
    paths = analyse_calibration(runs, tmp_path, members=(1, 3))
    assert all(path.stat().st_size > 1000 for path in paths.values())
    with paths["rows"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 3  # runs, members, scalings, regions
    (raw,) = [r for r in rows if (r["run"], r["members"], r["scaling"], r["region"]) == ("diffusion", "3", "raw", "all")]
    probability, truth = [], []
    for case in runs[0].recipe.data.cases("test"):
        probability.append(runs[0].predict(case, members=3).probability.ravel())
        truth.append(runs[0].recipe.data.read(case).labels.ravel())
    theirs = binary_calibration_error(as_tensor(np.concatenate(probability)), as_tensor(np.concatenate(truth)).long(), n_bins=15)
    assert float(raw["ece"]) == pytest.approx(float(theirs), abs=2e-4)
    assert raw["evaluations"] == "3"
    shares = [(runs[0].predict(case, members=3).members[:, 0] >= 0.5).mean(0).ravel() for case in runs[0].recipe.data.cases("test")]
    theirs = binary_calibration_error(as_tensor(np.concatenate(shares)), as_tensor(np.concatenate(truth)).long(), n_bins=4)
    assert float(raw["votes"]) == pytest.approx(float(theirs), abs=1e-5)  # four bins keep 0, 1/3, 2/3 and 1 apart


def test_the_temperature_lowers_the_log_score_of_the_cases_it_was_fitted_on(runs, tmp_path):
    for run in runs:
        raw, scaled = (row for row in of_run(run, "val", [3], iter, tmp_path / run.path.name) if row["region"] == "all")
        assert scaled["temperature"] != raw["temperature"] == 1
        assert scaled["nll"] <= raw["nll"] + 1e-6


def test_proper_scores_are_of_the_region_and_votes_of_the_whole_image(runs, tmp_path):
    with analyse_calibration(runs[:1], tmp_path, members=(3,))["rows"].open() as file:
        rows = {row["region"]: row for row in csv.DictReader(file) if row["scaling"] == "raw"}
    squares: dict[str, list] = {region: [] for region in rows}
    for case in runs[0].recipe.data.cases("test"):
        p, y = runs[0].predict(case, members=3).probability[0], runs[0].recipe.data.read(case).truth > 0
        for region, where in {"all": y == y, "foreground": y | (p >= 0.5), "boundary": boundary_band(y, 3)}.items():
            squares[region].append(((p - y)[where] ** 2).mean())
    for region, row in rows.items():
        assert float(row["brier"]) == pytest.approx(np.mean(squares[region]), rel=1e-4)
        assert (row["floor"] != "", row["votes"] != "") == (region == "all", region == "all")
    assert len({row["nll"] for row in rows.values()}) == 3


def test_an_image_without_a_pixel_in_the_region_counts_as_zero(runs):
    case = runs[0].recipe.data.cases("test")[0]
    record = replace(runs[0].recipe.data.read(case), labels=np.zeros((32, 32), np.uint8))
    empty = Fused(record, {1: np.full((1, 32, 32), 0.25, np.float32)}, np.zeros((1, 32, 32), bool))
    found = {row["region"]: (row["brier"], row["ece_image"]) for row in scored([empty], 1, 1.0)}
    assert found == {"all": (0.0625, 0.25), "foreground": (0, 0), "boundary": (0, 0)}


def never(cases):
    raise AssertionError("work has begun")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"split": "val"}, "--split val holds case"),
        ({"split": "all"}, "--split all holds case"),
        ({"members": (0, 2)}, r"--members \[0, 2\]"),
        ({"members": ()}, "at least one member"),
    ],
)
def test_what_cannot_be_scored_is_refused_at_once(runs, tmp_path, wrong, words):
    with pytest.raises(InputError, match=words):
        analyse_calibration(runs, tmp_path / "out", progress=never, **wrong)


def test_other_contents_under_the_same_names_are_other_cases(runs, tmp_path):
    other = runs[1].on(str(write_phantoms(tmp_path / "other", 10, (32, 32), seed=5)))
    with pytest.raises(InputError, match="same test cases"):
        analyse_calibration([runs[0], other], tmp_path / "out", progress=never)


def test_runs_of_different_cases_are_refused(runs, tmp_path):
    other = runs[0].on(str(write_phantoms(tmp_path / "other", 20, (32, 32))))
    with pytest.raises(InputError, match="same test cases"):
        analyse_calibration([runs[0], other], tmp_path / "out")
