"""What training does before its first step, and says."""

import json

import pytest
import torch

import somite
from runs import tiny
from somite import opening
from somite.cli import main
from somite.data import dataset
from somite.data.phantoms import write_phantoms
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import scaled_linear
from somite.networks.medsegdiffnca import MedSegDiffNCA
from somite.recipe import build, parse, path_of
from somite.trainer import run as trainer
from somite.training import Training


@pytest.fixture
def root(tmp_path):
    return write_phantoms(tmp_path / "data", 8, (24, 24))


def test_the_data_are_looked_up_once(root, tmp_path, monkeypatch):
    asked, find = [], dataset.find
    monkeypatch.setattr(dataset, "find", lambda *given: (asked.append(given), find(*given))[1])
    tiny(root, tmp_path / "run", "--training.steps=2", "--data.crop=16")
    assert len(asked) == 1


def test_it_says_what_it_is_about_to_do_and_how_long_it_will_take(root, tmp_path, capsys):
    tiny(root, tmp_path / "run", "--training.steps=14", "--data.crop=16")
    told = capsys.readouterr().out
    weights = json.loads((tmp_path / "run" / "environment.json").read_text())["weights"]
    assert f"{weights:,} weights, 4 training cases, 2 for validation, 14 steps of 2" in told
    assert "s a step, so about" in told
    assert "for the 4 that are left" in told


def test_files_are_read_under_a_bar_where_there_are_many(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "FEW", 3)
    tiny(root, tmp_path / "run", "--training.steps=2", "--data.crop=16")
    assert "reading" in capsys.readouterr().out


@pytest.mark.parametrize("able", [False, True])
def test_bfloat16_is_for_machines_that_have_it(root, tmp_path, capsys, monkeypatch, able):
    monkeypatch.setattr(trainer, "has_bfloat16", lambda device: able)
    tiny(root, tmp_path / "run", "--training.steps=2", "--data.crop=16", "--training.precision=bf16-mixed")
    told = capsys.readouterr().out
    assert ("has no bfloat16 arithmetic" in told) == (not able)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["precision"] == ("bf16-mixed" if able else "32-true")


@pytest.mark.parametrize("able", [False, True])
def test_so_is_the_arithmetic_of_automata(root, tmp_path, capsys, monkeypatch, able):
    monkeypatch.setattr(opening, "has_bfloat16", lambda device: able)
    run = tiny(root, tmp_path / "run", "--training.steps=2", "--data.crop=16")
    image = next((root / "images").iterdir())
    assert main(["predict", str(run), str(image), "--out", str(tmp_path / "out"), "--members", "1", "--precision", "bf16"]) == 0
    assert ("has no bfloat16 arithmetic" in capsys.readouterr().out) == (not able)
    told = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert told["precision"] == ["bfloat16" if able else "float32"]
    assert somite.load(run, device="cpu").at(arithmetic="bfloat16").told["precision"] == ["bfloat16"]  # Python does as it is told
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("predicts", "steps", "precision", "warned"),
    [("eps", 1, "bf16-mixed", True), ("x0", 1, "bf16-mixed", False), ("eps", 5, "bf16-mixed", False), ("eps", 1, "32-true", False)],
)
def test_rounding_in_one_step_of_noise_prediction_is_warned_of(predicts, steps, precision, warned, capsys):
    """SDSeg's schedule ends at alpha_bar = 6.69e-4: its errors grow 38.66-fold (specification of the published program)."""
    method = Diffusion(MedSegDiffNCA(12, 16, 2), scaled_linear(1000, 0.0015, 0.0155), {}, DDIM(steps), predicts=predicts)
    trainer.warn_of_gain(method, precision)
    assert ("38.7-fold" in capsys.readouterr().out) == warned


@pytest.mark.parametrize("right", [True, False])
def test_networks_of_volumes_train_in_bfloat16_only_where_its_gradients_are_right(right, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(trainer, "bfloat16_gradients_in_3d", lambda: right)
    asked = Training(precision="bf16-mixed")
    for recipe, deep in (("ctpretrain/small", True), ("medsegdiffnca/demo", False)):
        found = trainer.usable_precision(asked, build(parse(path_of(recipe))).method)
        assert found == ("32-true" if deep and not right else "bf16-mixed")
        assert ("wrong bfloat16 gradients" in capsys.readouterr().out) == (deep and not right)
