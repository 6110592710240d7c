"""Truth: the official GeCA program's stored run (reference/geca), and diffusers' DiT (tests/networks/test_dit.py)."""

from argparse import Namespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

import somite
from official_geca import HERE, arrays, masks, replayed
from regression import write_images
from somite.checkpoint import tensors
from somite.errors import InputError
from somite.networks.dit import DiT
from somite.weights.dit import DiTImporter
from somite.weights.geca import GeCAImporter
from somite.weights.importer import Asked

NETWORKS = {
    "geca": {
        "class_path": "somite.networks.geca.GeCA",
        "init_args": {
            "updates": 3,
            "positions": "flat",
            "border": "null",
            "firing": {"class_path": "somite.nn.automaton.Stochastic"},
        },
    },
    "dit": {"class_path": "somite.networks.dit.DiT"},
}


def recipe(folder, kind):
    """How the program samples, beside a task that asks nothing of it."""
    guided = {"network": NETWORKS[kind], "forget": "entry", "shared_draws": False}
    method = {
        "network": {"class_path": "somite.diffusion.guidance.Guided", "init_args": guided},
        "schedule": {"class_path": "somite.diffusion.schedule.linear"},
        "codec": {"class_path": "somite.diffusion.codec.Signed", "init_args": {"channels": 4}},
        "terms": {"noise": {"class_path": "somite.diffusion.terms.Noise"}},
        "sampler": {
            "class_path": "somite.diffusion.samplers.Ancestral",
            "init_args": {"steps": 10, "variance": "learned", "clip": None, "spacing": "linspace"},
        },
        "heredity": {"class_path": "somite.diffusion.heredity.InSampling"},
    }
    tree = {
        "task": {"class_path": "regression.Smoothing"},
        "data": {"root": str(write_images(folder / "images"))},
        "method": {"class_path": "somite.diffusion.methods.Diffusion", "init_args": method},
        "training": {"steps": 1},
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


@pytest.fixture
def checkpoint(tmp_path):
    """As the program saves one: the raw weights are others than the average, under DistributedDataParallel's names."""
    averaged = load_file(HERE / "small_weights.safetensors")
    raw = {f"module.{name}": value + 1 for name, value in averaged.items()}
    path = tmp_path / "best_ckpt.pt"
    torch.save({"model": raw, "ema": averaged, "opt": {"state": {}}, "args": Namespace(epochs=14000)}, path)
    return path


def test_an_imported_geca_samples_as_the_official_program(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(GeCAImporter, "recipe", recipe(tmp_path, "geca"))
    state = tensors(checkpoint)
    assert GeCAImporter().recognises(state)
    assert not DiTImporter().recognises(state)
    run = somite.load(GeCAImporter().convert([state], [checkpoint], tmp_path / "run", Asked(4)), trust=True)
    known = arrays("sample_cfg15_ghg")
    normal, uniform = [known["z"]], []
    for seeds, fires, noise in zip(known["seed_center_steps"], known["uniform_steps"], known["noise_steps"], strict=True):
        for half in (slice(2), slice(2, 4)):
            normal.append(seeds[half])
            uniform += masks(fires[:, half])
        normal.append(noise[:2])
    with replayed(normal[:-1], uniform):
        *_, last = run.method.trajectory({"labels": known["labels"]}, (2, 4, 8, 8))
    want = known["samples"][-1, :2]
    torch.testing.assert_close(last.x / want.abs().max(), want / want.abs().max(), rtol=0, atol=1e-4)


def test_raw_weights_are_had_on_request(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(GeCAImporter, "recipe", recipe(tmp_path, "geca"))
    out = GeCAImporter().convert([tensors(checkpoint)], [checkpoint], tmp_path / "raw", Asked(4, raw=True))
    found = load_file(out / "weights.safetensors")["network.network.rule.fc1.bias"]
    averaged = load_file(HERE / "small_weights.safetensors")["transformer.layers.0.1.fn.net.0.bias"]
    torch.testing.assert_close(found, averaged + 1)


def test_a_checkpoint_without_what_was_asked_for_or_of_other_sizes_is_refused(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(GeCAImporter, "recipe", recipe(tmp_path, "geca"))
    state = tensors(checkpoint)
    with pytest.raises(InputError, match="no raw weights"):
        GeCAImporter().convert([{k: v for k, v in state.items() if "ema" in k}], [checkpoint], tmp_path / "run", Asked(4, raw=True))
    with pytest.raises(InputError, match="1 entries are missing"):
        GeCAImporter().convert([{k: v for k, v in state.items() if "to_out.0.bias" not in k}], [checkpoint], tmp_path / "run", Asked(4))
    assert not (tmp_path / "run").exists()


def test_an_imported_dit_is_the_same_network(tmp_path, monkeypatch):
    monkeypatch.setattr(DiTImporter, "recipe", recipe(tmp_path, "dit"))
    torch.manual_seed(0)
    network = DiT(width=16, depth=2, heads=2, classes=3).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    run = somite.load(DiTImporter().convert([network.state_dict()], [HERE / "README.md"], tmp_path / "run", Asked(2)), trust=True)
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), {"labels": torch.eye(3)[:2]}
    with torch.no_grad():
        ours = run.method.network.network
        torch.testing.assert_close(ours(x, t, ours.encode(labels)).value, network(x, t, network.encode(labels)).value)
