"""Latents through the whole house: a tiny SDSeg on a frozen autoencoder trains, is opened, answers at odd sizes and is evaluated."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import somite
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.nn.kl import kl_autoencoder
from somite.rng import seeded
from somite.store import digest_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    kl_autoencoder(32, (1, 2), 1, latent_channels=3).save_pretrained(place / "vae")
    network = {"channels": 32, "mults": [1, 2], "res_blocks": 1, "attention": [2], "heads": 2, "latent_channels": 3}
    network |= {"encoder_channels": 32, "encoder_mults": [1, 2], "encoder_blocks": 1, "encoder_start": {"weights": str(place / "vae")}}
    codec = {"weights": {"source": str(place / "vae")}, "scale": 0.5, "posterior": "mean"}
    tree = {
        "task": {"class_path": "somite.tasks.segmentation.Segmentation", "init_args": {"members": 2, "steps": [1, 2]}},
        "data": {"root": str(write_phantoms(place / "data", 6, (21, 26)))},
        "method": {
            "class_path": "somite.diffusion.methods.Diffusion",
            "init_args": {
                "network": {"class_path": "somite.networks.sdseg.SDSeg", "init_args": network},
                "codec": {"class_path": "somite.diffusion.latent.Autoencoder", "init_args": codec},
                "schedule": {"class_path": "somite.diffusion.schedule.scaled_linear"},
                "predicts": "x0",
                "terms": {"latent": {"class_path": "somite.diffusion.terms.Clean", "init_args": {"power": 1}}},
                "sampler": {"class_path": "somite.diffusion.samplers.DDIM", "init_args": {"steps": 1}},
            },
        },
        "training": {"steps": 2, "batch": 2, "validate": 2, "warmup": 1},
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return somite.train(place / "recipe.yaml", out=place / "runs" / "run")


def test_the_autoencoder_is_in_no_weights(run):
    names = {*load_file(run.path / "weights.safetensors")}
    assert names == {*run.method.state_dict()}
    assert all(name.startswith(("network.unet.", "network.vision.")) for name in names)
    assert len(list((run.path.parent / "frozen").iterdir())) == 1  # codec and encoder name the same folder


def test_opening_does_without_what_training_started_from(run):
    told = yaml.safe_load((run.path / "recipe.yaml").read_text())["method"]["init_args"]
    start, part = told["network"]["init_args"]["encoder_start"], told["codec"]["init_args"]["weights"]
    assert start["digest"] == part["digest"] == digest_of(Path(start["weights"]))
    Path(start["weights"]).rename(Path(start["weights"]).with_name("elsewhere"))
    try:
        opened = somite.load(run.path)
        assert opened.at(steps=2).method.steps == 2
        assert "encoder_start" in opened.source
    finally:
        Path(start["weights"]).with_name("elsewhere").rename(start["weights"])


def test_masks_have_the_images_own_size(run):
    image = np.random.default_rng(0).random((3, 21, 26), dtype=np.float32)
    result = run.predict(image)
    assert result.mask.shape == (21, 26)
    assert result.members.shape == (2, 1, 21, 26)
    assert not np.array_equal(*result.members)
    assert run.method.codec.shape((1, 1, 21, 26)) == (1, 3, 11, 13)


def test_latents_are_not_clipped(run):
    method = run.method
    with seeded(0, ["a"]):
        *_, last = method.trajectory({"image": torch.rand(1, 3, 21, 26)}, (1, 1, 21, 26))
    assert method.sampler.clip == "codec" and method.codec.bound is None
    torch.testing.assert_close(last.x, last.pred.output.value)  # one step of an x0 predictor gives its value, whatever its size


def test_it_is_evaluated_with_its_curve(run):
    assert run.evaluate()["metrics"]["dice"]["cases"] == len(run.recipe.data.cases("test"))
    assert run.report().is_file()


@pytest.mark.parametrize("picture", ["Palette", "Layers"])
def test_several_classes_in_one_pass(picture, run, tmp_path):
    """Three classes, of which the data show two: in training, evaluation and files."""
    place = run.path.parent.parent
    tree = yaml.safe_load((place / "recipe.yaml").read_text())
    tree["data"] |= {"labels": [0, 255, 100]}
    arguments = tree["method"]["init_args"]
    arguments["codec"]["init_args"]["picture"] = {"class_path": f"somite.diffusion.pictures.{picture}", "init_args": {"classes": 3}}
    arguments["network"]["init_args"]["mask_latents"] = 2 if picture == "Layers" else 1
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(tree))
    made = somite.train(tmp_path / "classes.yaml", out=tmp_path / "run")
    assert made.method.codec.channels == (6 if picture == "Layers" else 3)
    result = made.predict(made.recipe.data.cases("test")[0])
    assert result.probability.shape == (3, 21, 26)
    np.testing.assert_allclose(result.probability.sum(0), 1, atol=1e-5)
    assert made.evaluate()["by_label"].keys() == {"255", "100"}


def test_a_volume_goes_slice_by_slice(run):
    volume = np.random.default_rng(0).random((3, 10, 9, 4), dtype=np.float32)
    result = run.predict(volume, members=1)
    assert result.mask.shape == (10, 9, 4)
    assert not np.array_equal(result.probability[0, ..., 0], result.probability[0, ..., 1])


def test_other_samplers_of_as_many_steps(run):
    image = np.random.default_rng(0).random((3, 21, 26), dtype=np.float32)
    first = run.predict(image).probability
    for name in ("ddim", "dpm-solver++"):  # in one step all give the prediction at T-1
        other = run.at(sampler=name)
        assert other.method.steps == 1
        np.testing.assert_allclose(other.predict(image).probability, first, atol=1e-5)
    three = run.at(steps=3, sampler="dpm-solver++")
    assert type(three.method.sampler).__name__ == "Diffusers" and three.method.steps == 3
    assert three.at(sampler="ddim").method.steps == 3
    assert not np.allclose(three.predict(image).probability, first)
    with pytest.raises(InputError, match="no short name 'euler'"):
        run.at(sampler="euler")
