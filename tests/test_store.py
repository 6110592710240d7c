"""Frozen parts: stored once, in no weights, found again, packed, and never a way round the rule about strangers' classes."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from safetensors.torch import load_file, save_file

import somite
from backboned import Backboned
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.nn.frozen import Frozen, Part
from somite.store import begun, digest_of, kept, located, put
from somite.trainer.module import Module
from somite.trust import only_own


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A recipe whose network has a frozen encoder, data, and no store of the user's."""
    monkeypatch.setenv("SOMITE_STORE", str(tmp_path / "store"))
    write_phantoms(tmp_path / "data", 6, (24, 24))
    torch.manual_seed(0)
    save_file({"weight": torch.randn(4, 3, 3, 3), "bias": torch.zeros(4)}, tmp_path / "encoder.safetensors")
    part = {"source": str(tmp_path / "encoder.safetensors")}
    tree = {
        "task": {"class_path": "somite.tasks.segmentation.Segmentation", "init_args": {"members": 2}},
        "data": {"root": str(tmp_path / "data")},
        "method": {
            "class_path": "somite.diffusion.methods.Diffusion",
            "init_args": {
                "network": {"class_path": "backboned.Backboned", "init_args": {"backbone": part}},
                "schedule": {"class_path": "somite.diffusion.schedule.linear"},
                "predicts": "logits",
                "terms": {"mask": {"class_path": "somite.diffusion.terms.DiceCE"}},
                "sampler": {"class_path": "somite.diffusion.samplers.DDIM", "init_args": {"steps": 1}},
            },
        },
        "training": {"steps": 12, "batch": 2, "validate": 4, "checkpoint": 3, "ema": 0.9, "warmup": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def train(place, name="run"):
    return main(["train", str(place / "recipe.yaml"), "--out", str(place / "runs" / name)])


IMAGE = np.random.default_rng(0).random((3, 24, 24), dtype=np.float32)


def test_it_is_stored_once_and_in_no_weights(place):
    assert train(place) == 0
    run, digest = place / "runs" / "run", digest_of(place / "encoder.safetensors")
    assert {*load_file(run / "weights.safetensors")} == {"network.head.weight", "network.head.bias"}
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for kind in ("state_dict", "current_model_state"):
        assert not [name for name in checkpoint[kind] if "backbone" in name]
    assert yaml.safe_load((run / "recipe.yaml").read_text())["method"]["init_args"]["network"]["init_args"]["backbone"]["digest"] == digest
    assert [path.name for path in (place / "runs" / "frozen").iterdir()] == [digest]
    assert json.loads((run / "environment.json").read_text())["weights"] == 5 * 9 + 1
    assert train(place, "second") == 0
    assert [path.name for path in (place / "runs" / "frozen").iterdir()] == [digest]


def test_it_resumes_to_the_same_bits(place, monkeypatch):
    def stopped(self, batch, index, step=Module.training_step):
        if index == 7:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Module, "training_step", stopped)
        assert train(place, "halted") == 130
    assert train(place, "halted") == train(place, "straight") == 0
    ours, theirs = (place / "runs" / name / "weights.safetensors" for name in ("halted", "straight"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_where_it_is_looked_for(place):
    assert train(place) == 0
    run, digest = place / "runs" / "run", digest_of(place / "encoder.safetensors")
    expected = somite.load(run, trust=True).predict(IMAGE).probability
    (place / "encoder.safetensors").unlink()
    assert np.array_equal(somite.load(run, trust=True).predict(IMAGE).probability, expected)  # beside the runs
    moved = shutil.copytree(run, place / "elsewhere" / "run")
    with pytest.raises(InputError, match=r"encoder.safetensors \(SHA-256 .*download it and put it at .*store.*somite pack"):
        somite.load(moved, trust=True)
    (place / "store").mkdir()
    shutil.copy(place / "runs" / "frozen" / digest, place / "store" / digest)
    assert np.array_equal(somite.load(moved, trust=True).predict(IMAGE).probability, expected)  # the user's store
    shutil.rmtree(place / "store")
    assert main(["pack", str(run)]) == 0
    shutil.rmtree(moved)
    shutil.copytree(run, moved)
    shutil.rmtree(place / "runs")
    opened = somite.load(moved, trust=True)
    assert np.array_equal(opened.predict(IMAGE).probability, expected)  # in the run
    assert np.array_equal(opened.at(members=2, readout="sample").predict(IMAGE).probability, expected)


def test_another_file_of_its_name_is_refused(place):
    assert train(place) == 0
    save_file({"weight": torch.randn(4, 3, 3, 3), "bias": torch.zeros(4)}, place / "encoder.safetensors")
    shutil.rmtree(place / "runs" / "frozen")
    with pytest.raises(InputError, match=r"encoder.safetensors is not the part that .*run was trained with"):
        somite.load(place / "runs" / "run", trust=True)


def test_a_part_that_is_a_strangers_run_is_held_to_the_same_rule(place):
    """A source may be any path, but a run that lies there names somite's classes only."""
    nested = place / "nested"
    nested.mkdir()
    (nested / "recipe.yaml").write_text("task: {class_path: stranger.Task}\n")
    config = Namespace(method=Namespace(codec=Namespace(weights=Namespace(source=str(nested), digest=None))))
    with pytest.raises(InputError, match=r"nested.recipe.yaml names stranger.Task, which is not somite's"):
        located(config, place / "run", only_own)
    assert located(config, place / "run", lambda _: None).method.codec.weights.source == str(nested)
    (place / "outer.yaml").write_text(yaml.safe_dump({"backbone": {"source": "../a b/c.pt", "digest": None}}))
    only_own(place / "outer.yaml")  # a path to weights is no class
    (place / "outer.yaml").write_text(yaml.safe_dump({"backbone": {"source": "../a b/c.pt", "class_path": "x.Y"}}))
    with pytest.raises(InputError, match="not somite's"):
        only_own(place / "outer.yaml")


def test_a_frozen_module_is_outside_of_everything(place):
    network = Backboned(Part(str(place / "encoder.safetensors")))
    network.train()
    assert not network.backbone.module.training
    assert {name for name, _ in network.named_parameters()} == {"head.weight", "head.bias"}
    assert copy.deepcopy(network).backbone is network.backbone
    network.double()
    assert network.backbone.module.weight.dtype == torch.float64  # it follows its parent
    assert not any(p.requires_grad for p in network.backbone.module.parameters())
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    Frozen(network.backbone.module)(x).sum().backward()
    assert x.grad.any()  # gradients pass through


def test_a_folders_digest_is_of_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x").write_text("1")
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x").rename(tmp_path / "b" / "sub" / "y")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")


def test_of_a_run_its_recipe_and_weights_are_the_part(tmp_path):
    for name in ("recipe.yaml", "weights.safetensors", "checkpoints/last.ckpt", "glimpses/1.png"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(name)
    digest = digest_of(tmp_path / "run")
    stored = put(tmp_path / "run", digest, tmp_path / "frozen")
    assert {path.name for path in stored.iterdir()} == {"recipe.yaml", "weights.safetensors"}
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert digest_of(stored) == digest_of(tmp_path / "run") == digest
    (tmp_path / "run" / "weights.safetensors").write_text("others")
    assert digest_of(tmp_path / "run") != digest


def test_a_start_is_for_training_alone(tmp_path):
    """Training finds it and writes its digest; opening wants nothing of it, and another file is refused."""
    (tmp_path / "start.pt").write_text("numbers")
    start = Namespace(weights=str(tmp_path / "start.pt"), digest=None)
    config = Namespace(method=Namespace(terms={"a": Namespace(kept=[start])}, start=start.clone(), other=None))
    told = kept(config, tmp_path / "runs" / "run")
    assert told.method.start.digest == told.method.terms["a"].kept[0].digest == digest_of(tmp_path / "start.pt")
    assert start.digest is None and not (tmp_path / "runs" / "frozen").exists()
    assert begun(told, tmp_path / "runs" / "run").method.start.weights == str(tmp_path / "start.pt")
    (tmp_path / "start.pt").write_text("other numbers")
    with pytest.raises(InputError, match="not the part that"):
        begun(told, tmp_path / "runs" / "run")
    (tmp_path / "start.pt").unlink()
    with pytest.raises(InputError, match=r"needs .*start\.pt \(SHA-256"):
        begun(told, tmp_path / "runs" / "run")
    opened = located(told, tmp_path / "runs" / "run", only_own)
    assert opened.method.start is None and opened.method.terms["a"].kept == [None]
    assert told.method.start.digest  # the run's recipe still says where it began


def test_a_starts_place_is_no_class(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"start": {"weights": "../a b/c.pt", "digest": None}}))
    only_own(path)
    for other in ({"weights": "../a b/c.pt"}, {"weights": "../a b/c.pt", "source": "x"}, {"weights": "w", "digest": "stranger.Task"}):
        path.write_text(yaml.safe_dump({"start": other}))
        with pytest.raises(InputError, match="not somite's"):
            only_own(path)
