import csv

import numpy as np
import pytest
from torch import as_tensor
from torchmetrics.functional.classification import binary_calibration_error

import somite
from runs import tiny
from somite.analysis.calibration import analyse_calibration
from somite.data.phantoms import write_phantoms
from somite.errors import InputError


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
    with analyse_calibration(runs, tmp_path, split="val", members=(3,))["rows"].open() as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "all"]
    for name in ("diffusion", "forward"):
        raw, scaled = (next(r for r in rows if (r["run"], r["scaling"]) == (name, kind)) for kind in ("raw", "temperature"))
        assert float(scaled["temperature"]) != 1
        assert float(scaled["nll"]) <= float(raw["nll"]) + 1e-6


def test_runs_of_different_cases_are_refused(runs, tmp_path):
    other = somite.load(runs[0].path, device="cpu")
    other.recipe.data.move(str(write_phantoms(tmp_path / "other", 20, (32, 32))))
    with pytest.raises(InputError, match="same test cases"):
        analyse_calibration([runs[0], other], tmp_path / "out")
