"""Reconstruction of images, masks and both, through train, evaluate, predict and report; its numbers by other means."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

import somite
from somite.cli import main
from somite.contracts import TaskContract
from somite.data.dataset import Data
from somite.data.phantoms import write_phantoms
from somite.diffusion.autoencoding import Autoencoding
from somite.diffusion.codec import Signed
from somite.errors import InputError
from somite.networks.autoencoder import KLAutoencoder
from somite.nn.kl import kl_autoencoder
from somite.recipe import build, parse, path_of
from somite.tasks.reconstruction import Reconstruction

SMALL = [
    "--method.network.mults=[1,1]",
    "--data.preprocess.size=[32,28]",
    "--data.crop=16",
    "--training.steps=2",
    "--training.batch=2",
    "--training.warmup=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 6, (21, 26))


def trained(recipe, data, out, *more):
    assert main(["train", recipe, f"--data.root={data}", *SMALL, *more, "--out", str(out)]) == 0
    return somite.load(out, device="cpu")


def test_both_go_the_whole_way(data, tmp_path, capsys):
    run = trained("autoencoder/small", data, tmp_path / "run")
    summary = run.evaluate()
    cases = run.recipe.data.cases("test")
    rows = list(csv.DictReader((run.path / "rows.csv").open()))
    assert list(rows[0]) == ["case", "group", "dice", "psnr", "mae"]
    for row, case in zip(rows, cases, strict=True):
        sample = run.recipe.data.loaded(case)
        given = torch.cat([sample["image"], sample["mask"].float()], 1)
        with torch.no_grad():
            z = torch.cat([2 * sample["image"] - 1, (2 * sample["mask"].float() - 1).expand(-1, 3, -1, -1)], 1)
            value = run.method.network(z, torch.zeros(1, dtype=torch.long), {}).value
        shares = ((value + 1) / 2).clamp(0, 1)
        maps = torch.cat([shares[:, :3], shares[:, 3:].mean(1, keepdim=True)], 1)
        assert float(row["mae"]) == pytest.approx(float((maps - given).abs().mean()), rel=1e-4)
        assert float(row["psnr"]) == pytest.approx(-10 * math.log10(float(((maps - given)[:, :3] ** 2).mean())), rel=1e-4)
        mask, truth = maps[:, 3] > 0.5, given[:, 3] > 0
        assert float(row["dice"]) == pytest.approx(2 * int((mask & truth).sum()) / int(mask.sum() + truth.sum()), abs=1e-6)
    assert summary["metrics"]["psnr"]["cases"] == len(cases)
    assert "PSNR" in run.report().read_text()
    image = next((data / "images").iterdir())
    assert main(["predict", str(run.path), str(image), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "rebuilds masks" in capsys.readouterr().err


def test_images_come_back_as_files(data, tmp_path):
    run = trained("autoencoder/images", data, tmp_path / "run", "--method.network.channels=32", "--method.network.blocks=1")
    image = next((data / "images").iterdir())
    assert main(["predict", str(run.path), str(image), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert Image.open(tmp_path / "out" / f"{image.stem}_rebuilt.png").size == (28, 32)


def test_classes_as_colours_are_scored_by_label(data, tmp_path):
    palette = ["--method.codec=somite.diffusion.pictures.Palette", "--method.codec.classes=2", "--data.labels=[0,255]"]
    run = trained("autoencoder/masks", data, tmp_path / "run", *palette)
    case = run.recipe.data.cases("test")[0]
    answer = run.answer(case)
    assert answer.maps.shape == answer.truth.shape == (1, 2, 32, 28)
    mask, truth = answer.maps[0].argmax(0).numpy() == 1, run.recipe.data.loaded(case)["mask"][0, 0].numpy() == 1
    dice = 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))
    assert run.recipe.task.score(answer).rows[0]["dice"] == pytest.approx(dice)


def test_a_tiny_decoder_is_trained_by_its_recipe(data, tmp_path):
    kl_autoencoder(32, (1, 2), 1).save_pretrained(tmp_path / "vae")
    options = [*SMALL[1:], f"--method.network.teacher.source={tmp_path / 'vae'}", "--method.network.width=8"]
    assert main(["train", "autoencoder/tiny", f"--data.root={data}", *options, "--out", str(tmp_path / "run")]) == 0
    run = somite.load(tmp_path / "run", device="cpu")
    assert not run.method.network.tiny.scale.isnan()
    assert {name.split(".")[1] for name in run.method.state_dict()} == {"tiny"}


def test_what_cannot_be_rebuilt(data):
    with pytest.raises(InputError, match=r"teacher\.source"):
        build(parse(path_of("autoencoder/tiny")))
    recipe = build(
        parse(
            path_of("autoencoder/images"),
            [f"--data.root={data}", "--data.preprocess.channels=1", "--data.preprocess.size=16", "--method.network.channels=32"],
        )
    )
    with pytest.raises(InputError, match="1 channels but the codec Signed is for 3"):
        recipe.task.check(recipe.data, recipe.method.codec, map(recipe.data.loaded, recipe.data.cases("train")))


class TestContract(TaskContract):
    def make(self):
        return Reconstruction("image")

    def data(self, folder):
        return Data(str(write_phantoms(folder / "data", 6, (20, 24))))

    def method(self):
        torch.manual_seed(0)
        return Autoencoding(KLAutoencoder(32, (1, 1), 1), {}, Signed(channels=3))

    def test_an_answer_is_a_function_of_the_seed(self, tmp_path):
        """Of none: the posterior's mean is decoded."""
        task, data = self.make(), self.data(tmp_path).needing(self.make().needs)
        first, other = (task.score(self.answered(task, data, seed=seed)).rows for seed in (0, 1))
        assert first == other
