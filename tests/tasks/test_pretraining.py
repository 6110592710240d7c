"""Pretraining and body coordinates, through train, evaluate, predict and report."""

import csv
import math

import nibabel as nib
import numpy as np
import pytest
import torch

import somite
from scanned import trained
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.diffusion.learned_coordinates import Learned
from somite.errors import InputError
from somite.nn.frozen import Part
from somite.rng import normal, seeded


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 5, (16, 14, 12), 1)


@pytest.fixture(scope="module")
def bodyparts(data, tmp_path_factory):
    return trained("bodyparts/small", data, tmp_path_factory.mktemp("runs") / "bodyparts")


def rows_of(run):
    return list(csv.DictReader((run / "rows.csv").open()))


def test_diffusion_is_scored_by_denoising_the_middle_of_each_case(data, tmp_path):
    path = trained("ctpretrain/small", data, tmp_path / "run")
    assert main(["evaluate", str(path)]) == 0
    run = somite.load(path, device="cpu")
    (case,) = run.recipe.data.cases("test")
    levels = {int(row["t"]): row for row in csv.DictReader((path / "levels.csv").open())}
    sample = run.data.loaded(case)
    image, where = (sample[name][:, :, 4:12, 3:11, 2:10] for name in ("image", "coordinates"))
    for t, abar in ((10, 0.997806572507846), (60, 0.9583214064229061)):
        with seeded(0, [f"{case.id}/{t}"]):
            eps = normal((1, 1, 8, 8, 8), torch.device("cpu"))
        x_t = abar**0.5 * (2 * image - 1) + (1 - abar) ** 0.5 * eps
        with torch.no_grad():
            found = run.method.network(x_t, torch.tensor([t]), {"coordinates": where}).value
        x0 = (x_t - (1 - abar) ** 0.5 * found) / abar**0.5
        error = ((((x0 + 1) / 2).clamp(0, 1) - image) ** 2).mean()
        assert float(levels[t]["psnr"]) == pytest.approx(-10 * math.log10(error), abs=1e-3)
        given = ((((x_t / abar**0.5) + 1) / 2).clamp(0, 1) - image).square().mean()
        assert float(levels[t]["spoiled"]) == pytest.approx(-10 * math.log10(given), abs=1e-3)
    assert float(rows_of(path)[0]["psnr"]) == pytest.approx(np.mean([float(row["psnr"]) for row in levels.values()]), abs=1e-3)
    assert "Noise levels" in (path / "report.html").read_text()


def test_the_first_loss_of_noise_prediction_is_one(data, tmp_path):
    """Acceptance fact 6: the network's value begins at zero, and noise has a variance of one."""
    path = trained("ctpretrain/small", data, tmp_path / "run", "--training.steps=1", "--training.validate=1", "--training.rate=1e-9")
    losses = [float(row["value"]) for row in csv.DictReader((path / "metrics.csv").open()) if row["metric"] == "val/score"]
    assert losses[0] == pytest.approx(-1, abs=0.05)


def test_features_are_no_files(data, tmp_path, capsys):
    path = trained("ctpretrain/restore", data, tmp_path / "run")
    assert main(["evaluate", str(path)]) == 0
    image = next((data / "images").iterdir())
    assert main(["predict", str(path), str(image), "--out", str(tmp_path / "out")]) == 2
    assert "train a probe" in capsys.readouterr().err
    contrast = trained("ctpretrain/contrast", data, tmp_path / "contrast")
    assert main(["predict", str(contrast), str(image), "--out", str(tmp_path / "out")]) == 2
    assert "train a probe" in capsys.readouterr().err


def test_body_coordinates_go_the_whole_way(data, bodyparts, tmp_path):
    assert main(["evaluate", str(bodyparts)]) == 0
    (row,) = rows_of(bodyparts)
    run = somite.load(bodyparts, device="cpu")
    (case,) = run.recipe.data.cases("test")
    answer = run.predict(case)
    # By hand: all voxels, in mm, through the best affine map.
    mm = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip((16, 14, 12), (1, 1, 2), strict=True)], indexing="ij"), -1).reshape(-1, 3)
    said = np.concatenate([answer.coordinates.reshape(3, -1).T.double().numpy(), np.ones((len(mm), 1))], 1)
    apart = mm - said @ np.linalg.pinv(said) @ mm
    assert float(row["error"]) == pytest.approx(np.linalg.norm(apart, axis=1).mean(), rel=1e-3)
    assert main(["predict", str(bodyparts), str(case.images[0]), "--out", str(tmp_path / "out")]) == 0
    found = nib.load(tmp_path / "out" / f"{case.id}_coordinates.nii.gz")
    source = nib.load(case.images[0])
    assert found.shape == (*source.shape[:3], 3) and np.array_equal(found.affine, source.affine)
    # The file runs to the left and the back: on its own voxels the map is turned round.
    np.testing.assert_allclose(found.get_fdata().transpose(3, 0, 1, 2), answer.coordinates.numpy()[:, ::-1, ::-1], atol=1e-5)


def test_learned_coordinates_come_with_samples(data, bodyparts, tmp_path):
    more = [f"--data.coordinates.regressor.source={bodyparts}", "--data.coordinates=somite.diffusion.learned_coordinates.Learned"]
    path = trained("ctpretrain/small", data, tmp_path / "run", *reversed(more))
    run = somite.load(path, device="cpu")
    case = run.data.cases("train")[0]
    given = run.data.loaded(case)["coordinates"][0]
    torch.testing.assert_close(given, somite.load(bodyparts, device="cpu").predict(case).coordinates, rtol=1e-5, atol=1e-5)
    assert run.data.coordinates.name.startswith("learned (")


def test_coordinates_of_another_part_of_the_body_are_refused(data, bodyparts, tmp_path, capsys):
    more = ["--data.coordinates=somite.diffusion.learned_coordinates.Learned", f"--data.coordinates.regressor.source={bodyparts}"]
    args = ["train", "ctpretrain/small", f"--data.root={data}", *more, "--data.preprocess.above=0.6", "--out", str(tmp_path / "run")]
    assert main(args) == 2
    assert "looks at another part of volumes" in capsys.readouterr().err


def test_a_run_of_something_else_knows_no_coordinates(data, tmp_path):
    path = trained("ctpretrain/small", data, tmp_path / "run")
    with pytest.raises(InputError, match="has learned no coordinates"):
        _ = Learned(Part(str(path))).run


def test_views_must_be_asked_for(data, tmp_path, capsys):
    assert main(["train", "bodyparts/small", f"--data.root={data}", "--data.views=null", "--out", str(tmp_path / "run")]) == 2
    assert "set --data.views.size" in capsys.readouterr().err
