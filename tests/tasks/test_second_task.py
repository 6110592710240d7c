"""Another task trains, resumes, is evaluated, reported and predicts without a changed line anywhere: tests/regression.py is all of it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import somite
from regression import Small, Smoothing, smooth, write_images
from somite.cli import main
from somite.contracts import TaskContract
from somite.data.dataset import Data
from somite.diffusion.codec import Signed
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.trainer.module import Module

METHODS = {
    "diffusion": {
        "class_path": "somite.diffusion.methods.Diffusion",
        "init_args": {
            "network": {"class_path": "regression.Small"},
            "schedule": {"class_path": "somite.diffusion.schedule.linear", "init_args": {"steps": 100}},
            "codec": {"class_path": "somite.diffusion.codec.Signed", "init_args": {"channels": 3}},
            "predicts": "x0",
            "terms": {"clean": {"class_path": "somite.diffusion.terms.Clean"}},
            "sampler": {"class_path": "somite.diffusion.samplers.DDIM", "init_args": {"steps": 3}},
        },
    },
    "feed-forward": {
        "class_path": "somite.diffusion.methods.FeedForward",
        "init_args": {
            "network": {"class_path": "regression.Small"},
            "codec": {"class_path": "somite.diffusion.codec.Signed", "init_args": {"channels": 3}},
            "predicts": "x0",
            "terms": {"clean": {"class_path": "somite.diffusion.terms.Clean"}},
        },
    },
}


def recipe(folder, kind):
    path = folder / f"{kind}.yaml"
    tree = {
        "task": {"class_path": "regression.Smoothing"},
        "data": {"root": str(write_images(folder / "images")), "crop": 16, "augment": {"class_path": "somite.data.augment.Augment"}},
        "method": METHODS[kind],
        "training": {"steps": 60, "batch": 4, "rate": 0.01, "validate": 20, "checkpoint": 7, "ema": 0.9, "warmup": 2},
    }
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("kind", METHODS)
def test_the_whole_way(kind, tmp_path, monkeypatch, capsys):
    path, run = recipe(tmp_path, kind), tmp_path / "run"
    line = ["train", str(path), "--out", str(run)]

    def stopped(self, batch, index, step=Module.training_step):
        if index == 33:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Module, "training_step", stopped)
        assert main(line) == 130
    assert main(line) == 0
    assert "going on from step" in capsys.readouterr().out
    assert main([*line[:-1], str(tmp_path / "straight")]) == 0
    assert (run / "weights.safetensors").read_bytes() == (tmp_path / "straight" / "weights.safetensors").read_bytes()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    scores = [float(row["value"]) for row in rows if row["metric"] == "val/score"]
    assert len(scores) == 3
    assert max(scores) < -1  # and yet the best weights were written
    assert scores[-1] > scores[0]
    assert Image.open(run / "glimpses" / "step-000060.png").size[0] == 2 * 128 + 4

    assert main(["evaluate", str(run), "--trust"]) == 0
    found = json.loads((run / "metrics.json").read_text())
    table = list(csv.DictReader((run / "rows.csv").open()))
    assert found["metrics"]["psnr"]["mean"] == pytest.approx(np.mean([float(row["psnr"]) for row in table]), abs=1e-4)
    assert found["worst"] == pytest.approx(min(float(row["psnr"]) for row in table), abs=1e-4)
    assert [row["at"] for row in csv.DictReader((run / "curves.csv").open())] == ["1"] * len(table)
    page = (run / "report.html").read_text()
    assert "the mean PSNR is" in page
    assert "Validation minus squared error" in page
    assert "Dice" not in page
    assert "Lowest PSNR" in page

    opened = somite.load(run, trust=True, device="cpu")
    image = next((tmp_path / "images").glob("*.png"))
    answer = opened.predict(image)
    truth = smooth(torch.from_numpy(answer.record.image)[None])[0].numpy()
    assert np.abs(answer.image - truth).mean() < np.abs(truth.mean((1, 2), keepdims=True) - truth).mean()  # better than a constant
    out = tmp_path / "out"
    assert main(["predict", str(run), str(image), "--out", str(out), "--trust"]) == 0
    assert np.abs(np.asarray(Image.open(out / f"{image.stem}_smooth.png")) / 255 - np.moveaxis(answer.image.clip(0, 1), 0, -1)).max() < 0.01
    assert main(["compare", str(run), str(run)]) == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["predict", "RUN", "IMAGE", "--out", "out", "--trust", "--save", "mask"], "there is no such output; choose from image"),
        (["evaluate", "RUN", "--trust", "--tolerance", "3", "--out", "out"], "has no tolerance"),
        (["calibrate", "RUN", "--trust"], "no probabilities of a mask"),
        (["analyse", "calibration", "RUN", "--trust", "--out", "out"], "is no segmentation"),
        (["predict", "RUN", "IMAGE", "--out", "out", "--trust", "--firing", "expected"], "no cells"),
    ],
)
def test_what_belongs_to_masks_is_refused_in_a_sentence(command, words, tmp_path_factory, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    path = recipe(Path.cwd(), "feed-forward")
    assert main(["train", str(path), "--training.steps=2", "--out", "run"]) == 0
    image = str(next(Path("images").glob("*.png")))
    capsys.readouterr()
    assert main([{"RUN": "run", "IMAGE": image}.get(word, word) for word in command]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


class TestContract(TaskContract):
    def make(self):
        return Smoothing()

    def data(self, folder):
        return Data(str(write_images(folder / "images")))

    def method(self):
        torch.manual_seed(0)
        return Diffusion(Small(), linear(50), {}, DDIM(2), Signed(channels=3), "x0")
