"""Run folders of version 0.1.0, made by that version on eight phantoms (tests/reference/run-0.1.0): they load, answer, evaluate and resume.

What it wrote is the oracle. It was made on another machine than this one, perhaps, so numbers agree to rounding and not to the bit.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import somite
from somite import calibration
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError

OLD = Path(__file__).parent / "reference" / "run-0.1.0"
LINE = [
    "train",
    "medsegdiffnca/demo",
    "--data.root=phantoms",
    "--method.network.channels=12",
    "--method.network.hidden=16",
    "--method.network.updates=3",
    "--data.crop=32",
    "--data.preprocess.size=null",
    "--training.batch=2",
    "--training.warmup=2",
    "--method.network.dropout=0.2",
    "--training.steps=18",
    "--training.validate=6",
    "--training.checkpoint=4",
    "--training.accumulate=2",
    "--training.patience=5",
    "--task.members=3",
    "--task.steps=[1,2]",
]


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the runs were made: the data lie in ./phantoms."""
    write_phantoms(tmp_path / "phantoms", 10, (40, 40))
    for name in ("stopped", "finished"):
        shutil.copytree(OLD / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_answers_as_it_did(place):
    run = somite.load("finished", device="cpu")
    for name in ("case008", "case009"):
        result = run.predict(Path("phantoms/images") / f"{name}.png")
        mask, probability, spread = (np.asarray(Image.open(f"finished/{name}_{kind}.png")) for kind in ("mask", "probability", "spread"))
        assert np.abs(result.probability[0] - probability / 65535).max() < 1e-3
        assert np.abs(result.spread[0] - spread / 65535).max() < 1e-3
        assert ((result.mask > 0) != (mask > 0)).mean() < 0.01


def test_it_is_evaluated_as_it_was_and_its_report_is_made(place):
    rows = rows_of("finished/rows.csv")
    summary = json.loads(Path("finished/metrics.json").read_text())
    assert main(["evaluate", "finished"]) == 0
    for before, after in zip(rows, rows_of("finished/rows.csv"), strict=True):
        assert before.keys() == after.keys()
        assert (before["case"], before["tercile"]) == (after["case"], after["tercile"])
        assert float(after["dice"]) == pytest.approx(float(before["dice"]), abs=0.01)
        assert float(after["brier"]) == pytest.approx(float(before["brier"]), abs=1e-3)
    again = json.loads(Path("finished/metrics.json").read_text())
    assert again["pooled"]["ece_all"]["mean"] == pytest.approx(summary["pooled"]["ece_all"]["mean"], abs=1e-3)
    page = Path("finished/report.html").read_text()
    assert "Validation Dice" in page  # its metrics.csv calls that val/dice
    assert main(["compare", "finished", "finished"]) == 0


def test_its_temperature_still_holds(place):
    run = somite.load("finished", device="cpu")
    assert "Tempered" in calibration.calibrated(run).told["overrides"][0]
    with pytest.raises(InputError, match="another steps"):
        calibration.calibrated(run.at(steps=2))


def test_it_goes_on_where_it_stopped_and_ends_where_it_would_have(place):
    lightning = "--training.lightning={log_every_n_steps: 1}"
    assert main([*LINE, lightning, "--out", "stopped"]) == 0
    ours, theirs = (torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True) for name in ("stopped", "finished"))
    assert ours["global_step"] == theirs["global_step"] == 18
    for kind in ("state_dict", "current_model_state"):
        for name, value in theirs[kind].items():
            torch.testing.assert_close(ours[kind][name], value, rtol=0, atol=1e-3)
    # early stopping and the best score are remembered under their new names
    (before,) = [state for key, state in theirs["callbacks"].items() if key.startswith("EarlyStopping")]
    (after,) = [state for key, state in ours["callbacks"].items() if key.startswith("EarlyStopping")]
    assert float(after["best_score"]) == pytest.approx(float(before["best_score"]), abs=0.02)
    ours, theirs = (load_file(f"{name}/weights.safetensors") for name in ("stopped", "finished"))
    assert all(torch.allclose(ours[name], value, rtol=0, atol=1e-3) for name, value in theirs.items())


def test_it_is_not_trained_on_with_another_recipe(place, capsys):
    assert main([*LINE, "--training.rate=0.5", "--training.lightning={log_every_n_steps: 1}", "--out", "stopped"]) == 2
    assert "training.rate is 0.002 there and 0.5 here" in capsys.readouterr().err
