"""Checkpoints of vox2vec and APE with the published names become runs whose networks give the official outputs."""

import json
from pathlib import Path

import pytest
import torch

import somite
from hashed import filled
from somite.cli import main
from somite.errors import InputError
from somite.networks.ape import APE
from somite.networks.vox2vec import Stage
from somite.nn.pyramid import FPN, doubled
from somite.weights.importer import import_run

HERE = Path(__file__).parents[1] / "reference" / "pretrain"
SHAPES = json.loads((HERE / "state_dict_keys.json").read_text())


@pytest.fixture
def vox2vec(tmp_path):
    """The official tiny backbone of the reference, rebuilt by its rule and saved as its authors save theirs."""
    state = filled(FPN(1, doubled(4, 4), lambda level: Stage(doubled(4, 4)[level]))).state_dict()
    torch.save(state, tmp_path / "vox2vec_contrastive.pt")
    return tmp_path / "vox2vec_contrastive.pt"


def test_vox2vec_gives_the_official_pyramid(vox2vec, tmp_path):
    assert main(["import", str(vox2vec), "--out", str(tmp_path / "run")]) == 0
    run, wanted = somite.load(tmp_path / "run", device="cpu"), torch.load(HERE / "A_fpn_tiny_even.pt", weights_only=True)
    image = wanted["x"]
    with torch.no_grad():
        found = run.method.network.pyramid(image, torch.zeros(1, dtype=torch.long), {"image": image})
    for level, cells in enumerate(found):
        torch.testing.assert_close(cells, wanted[f"pyr{level}"], rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "run" / "origin.json").read_text())["licence"].startswith("MIT")


def test_published_names_are_known_by_themselves():
    """Every name of the released files has its place, at the published size."""
    with torch.device("meta"):
        ape, fpn = APE(), FPN(1, doubled(16, 6), lambda level: Stage(doubled(16, 6)[level]))
    assert {name: list(value.shape) for name, value in ape.state_dict().items()} == SHAPES["ape"]
    assert {name: list(value.shape) for name, value in fpn.state_dict().items()} == SHAPES["fpn3d_16x6"]


def test_ape_is_read_off_its_file(tmp_path):
    network = filled(APE(widths=(8, 16, 32), depths=(2, 2, 2), depths_up=(1, 2)))
    torch.save(network.state_dict(), tmp_path / "ape.pt")
    run = somite.load(import_run([tmp_path / "ape.pt"], tmp_path / "run"), device="cpu")
    image, t = torch.rand(1, 1, 9, 16, 12), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        found, wanted = (one(image, t, {"image": image}).value for one in (run.method.network, network.eval()))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def broken(state, change):
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("right_blocks.0.layers.0.layers.0.weight"), "lacks"),
        (lambda s: s.update({"extra": torch.ones(1)}), "has no place here"),
        (lambda s: s.update({"left_blocks.1.layers.0.layers.2.bias": torch.ones(3)}), "of another size"),
        (lambda s: s["first_conv.bias"].fill_(float("nan")), "NaN"),
        (lambda s: s.update({"first_conv.weight": torch.ones(4, 1)}), "wanted"),
    ],
)
def test_damaged_files_are_told_and_leave_no_run(vox2vec, tmp_path, change, words):
    state = torch.load(vox2vec, weights_only=True)
    change(state)
    torch.save(state, vox2vec)
    with pytest.raises(InputError, match=r"vox2vec") as told:
        import_run([vox2vec], tmp_path / "run", "vox2vec")
    assert words in str(told.value) or (words == "has no place here" and "has no place here" in str(told.value))
    assert not (tmp_path / "run").exists()
