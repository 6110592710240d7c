"""Truth: the official GeCA program's stored run (reference/geca), diffusers' decoder, and diffusers' DiT (tests/networks/test_dit.py)."""

import csv
import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

import somite
from official_geca import HERE, arrays, masks, replayed
from somite.checkpoint import tensors
from somite.cli import main
from somite.errors import InputError
from somite.networks.dit import DiT
from somite.nn.conditioning import grid_positions
from somite.nn.kl import kl_autoencoder
from somite.weights.dit import DiTImporter
from somite.weights.geca import GeCAImporter
from somite.weights.importer import import_run

TABLE = "y_embedder.embedding_table."


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A small stand-in of the published autoencoder: as many latent channels, a reduction of 2."""
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    kl_autoencoder(32, (1, 1), 1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As the program saves one: the raw weights are others than the average, under DistributedDataParallel's names."""
    averaged = load_file(HERE / "small_weights.safetensors")
    raw = {f"module.{name}": value + 1 for name, value in averaged.items()}
    path = tmp_path_factory.mktemp("geca") / "best_ckpt.pt"
    torch.save({"model": raw, "ema": averaged, "opt": {"state": {}}, "args": Namespace(epochs=14000)}, path)
    return path


@pytest.fixture(scope="module")
def geca(checkpoint, vae, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "geca"
    assert main(["import", "geca", str(checkpoint), "--heads", "4", "--autoencoder", str(vae), "--out", str(out)]) == 0
    return somite.load(out, device="cpu")


def small_dit(**options):
    torch.manual_seed(0)
    network = DiT(**{"width": 16, "depth": 2, "heads": 2, "classes": 3} | options).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network


def imported(network, folder, vae, **entries):
    """The run that a DiT's checkpoint becomes."""
    state = {name: value.contiguous() for name, value in (network.state_dict() | entries).items() if value is not None}
    torch.save(state, folder / "dit.pt")
    return somite.load(import_run([folder / "dit.pt"], folder / "run", "dit", heads=2, autoencoder=str(vae)), device="cpu")


def test_an_imported_geca_samples_as_the_official_program(geca, checkpoint, vae):
    state = tensors(checkpoint)
    assert GeCAImporter().recognises(state) and not DiTImporter().recognises(state)
    known = arrays("sample_cfg15_ghg")
    normal, uniform = [known["z"]], []
    for seeds, fires, noise in zip(known["seed_center_steps"], known["uniform_steps"], known["noise_steps"], strict=True):
        for half in (slice(2), slice(2, 4)):
            normal.append(seeds[half])
            uniform += masks(fires[:, half])
        normal.append(noise[:2])
    with replayed(normal[:-1], uniform):  # of 10 steps and 3 updates, which no checkpoint tells
        images = geca.at(steps=10, updates=3).method.sample({"labels": known["labels"]}, (2, 3, 16, 16))
    with torch.no_grad():
        decoded = AutoencoderKL.from_pretrained(vae).decode(known["samples"][-1, :2] / 0.18215).sample
    want = (decoded / 2 + 0.5).clamp(0, 1)
    assert want.std() > 0.1  # the images show something
    torch.testing.assert_close(images, want, rtol=0, atol=1e-3)


def test_an_imported_run_is_sampled_by_label(geca, tmp_path):
    assert geca.method.steps == 250 and geca.method.network.network.updates == 12
    shorter = ["--device", "cpu", "--steps", "2", "--updates", "1", "--size", "9", "11"]
    assert main(["sample", str(geca.path), "-n", "1", "--labels", "3", *shorter, "--out", str(tmp_path / "drawn")]) == 0
    with Image.open(tmp_path / "drawn" / "images" / "sample-00000.png") as image:
        assert np.asarray(image).shape == (9, 11, 3)  # whole latents are drawn, and their images cut
    (row,) = csv.DictReader((tmp_path / "drawn" / "labels.csv").open())
    assert row == {"id": "sample-00000", **{str(index): str(int(index == 3)) for index in range(5)}}
    assert json.loads((geca.path / "origin.json").read_text())["origin"].startswith("GeCA, Elbatel et al. 2024")


def test_the_autoencoder_is_kept_beside_the_run(geca, vae, tmp_path):
    vae.rename(vae.with_name("elsewhere"))
    try:
        assert somite.load(geca.path, device="cpu").method.codec.channels == 4
    finally:
        vae.with_name("elsewhere").rename(vae)


def test_without_the_published_autoencoder_it_is_said_what_to_put_where(checkpoint, vae, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOMITE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    line = ["import", "geca", str(checkpoint), "--heads", "4", "--out", str(tmp_path / "run")]
    assert main(line) == 2
    told, folder = capsys.readouterr().err, tmp_path / "store" / "hub" / "stabilityai--sd-vae-ft-ema"
    assert "download its config.json and safetensors" in told and str(folder) in told and "(--autoencoder FOLDER)" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    AutoencoderKL.from_pretrained(vae).save_pretrained(folder)
    assert main(line) == 0


def test_raw_weights_are_had_on_request(checkpoint, vae, tmp_path):
    line = ["import", str(checkpoint), "--heads", "4", "--raw", "--autoencoder", str(vae), "--out", str(tmp_path / "raw")]
    assert main(line) == 0
    found = load_file(tmp_path / "raw" / "weights.safetensors")["network.network.rule.fc1.bias"]
    averaged = load_file(HERE / "small_weights.safetensors")["transformer.layers.0.1.fn.net.0.bias"]
    torch.testing.assert_close(found, averaged + 1)


def without(state, part):
    return {name: value for name, value in state.items() if part not in name}


@pytest.mark.parametrize(
    ("spoilt", "options", "said"),
    [
        (lambda state: {name: value for name, value in state.items() if "ema" in name}, {"raw": True}, "no raw weights of GeCA"),
        (lambda state: without(state, "to_out.0.bias"), {}, "1 entries are missing"),
        (lambda state: state, {"heads": None}, "so its heads cannot be told; give --heads"),
        (lambda state: state, {"autoencoder": "nowhere/at/all.pt"}, "^--autoencoder nowhere/at/all.pt is not there"),
        (lambda state: without(state, "embedding_table.1"), {}, "2 entries are missing"),
    ],
)
def test_what_does_not_fit_is_told(spoilt, options, said, checkpoint, vae, tmp_path, monkeypatch):
    monkeypatch.setattr("somite.weights.importer.tensors", lambda path: spoilt(tensors(path)))
    with pytest.raises(InputError, match=said) as error:
        import_run([checkpoint], tmp_path / "run", "geca", **{"heads": 4, "autoencoder": str(vae)} | options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_latents_and_their_autoencoder_must_fit(checkpoint, tmp_path):
    kl_autoencoder(32, (1, 1), 1, latent_channels=3).save_pretrained(tmp_path / "vae")
    with pytest.raises(InputError, match="makes latents of 4 channels, but the autoencoder has 3"):
        import_run([checkpoint], tmp_path / "run", heads=4, autoencoder=str(tmp_path / "vae"))
    torch.save({"input_blocks.0.0.weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="a run of EnsemDiff needs none from elsewhere"):
        import_run([tmp_path / "other.pt"], tmp_path / "run", autoencoder=str(tmp_path / "vae"))


def test_an_imported_dit_is_the_same_network(tmp_path, vae):
    network = small_dit()
    run = imported(network, tmp_path, vae)
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), {"labels": torch.eye(3)[:2]}
    guided = run.method.network
    with torch.no_grad():
        given, null = (network(x, t, network.encode({"labels": one})).value for one in (labels["labels"], torch.zeros(2, 3)))
        ours = guided(x, t, guided.encode(labels)).value
        torch.testing.assert_close(ours, null + 1.5 * (given - null))  # all channels, as GeCA's program does


def test_the_released_layout_of_a_dit(tmp_path, vae):
    """One table of labels, the last row for none; positions that tell the size; guidance of three channels."""
    network = small_dit()
    table, x, t = torch.randn(4, 16), torch.randn(1, 4, 8, 8), torch.tensor([500])
    named = {f"{TABLE}{end}": None for end in ("0.weight", "0.bias", "1.weight", "1.bias")} | {f"{TABLE}weight": table}
    run = imported(network, tmp_path, vae, **named, pos_embed=grid_positions((24, 24), 16, torch.device("cpu"))[None])
    assert run.recipe.data.preprocess.size == [96, 96]  # 24 patches of 2 latents of 2 pixels
    assert run.recipe.data.classes == ["0", "1", "2"]
    guided = run.method.network
    with torch.no_grad():
        given, null = (network(x, t, {"labels": row[None]}).value for row in (table[1], table[3]))
        ours = guided(x, t, guided.encode({"labels": torch.eye(3)[[1]]})).value
    torch.testing.assert_close(ours[:, :3], (null + 1.5 * (given - null))[:, :3])
    torch.testing.assert_close(ours[:, 3:], given[:, 3:])


def test_a_dit_without_labels_and_variance_asks_for_none(tmp_path, vae):
    run = imported(small_dit(classes=0, learn_variance=False), tmp_path, vae)
    assert run.recipe.data.classes is None and not run.recipe.task.labelled
    line = ["sample", str(run.path), "-n", "1", "--size", "8", "8", "--steps", "2", "--device", "cpu", "--out", str(tmp_path / "drawn")]
    assert main(line) == 0
    assert run.method.sampler.variance == "large"
