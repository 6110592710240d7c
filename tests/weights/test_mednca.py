"""The released Med-NCA weights and what the official code makes of them (tests/reference/nca/README.md)."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import somite
from somite.data.preprocess import Preprocess
from somite.errors import InputError
from somite.nn.automaton import Replay, Stochastic
from somite.weights.importer import import_run

HERE = Path(__file__).parents[1] / "reference" / "nca"
CHECKPOINTS = [HERE / "model0.pth", HERE / "model1.pth"]
IMAGE, LABEL = HERE / "hippocampus_374_image.nii.gz", HERE / "hippocampus_374_label.nii.gz"
SHA256 = (
    "c5ee0ff2861141a000bca497eb88b6b5477d07deb7957c65da7ab39382636be4",
    "2ece5be5081f3c0f73fb111a5ee22867e3430a6039b9dbaacd2326918e8d1660",
)


@pytest.fixture(scope="module")
def official():
    with np.load(HERE / "hippocampus_374_seed0.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return import_run(CHECKPOINTS, tmp_path_factory.mktemp("runs") / "hippocampus", "mednca")


@pytest.fixture
def run(folder):
    return somite.load(folder, device="cpu")


def logits(run, inputs):
    image = torch.as_tensor(inputs)[:, None]
    with torch.no_grad():
        return run.method.network(torch.zeros_like(image), torch.zeros(len(image)).long(), {"image": image}).value[:, 0]


def dice(p, y):
    return float(2 * (p * y).sum() / (p.sum() + y.sum()))


def replay(run, official):
    for i, (level, side) in enumerate(zip(run.method.network.levels, (16, 64), strict=True)):
        masks = np.unpackbits(official[f"fire_masks_level{i}"], axis=-1).astype(bool).reshape(39, 16, side, side)
        level.firing = Replay(iter(torch.as_tensor(masks).unbind(1)))


def test_fact_a15_the_official_run_is_repeated(run, official):
    replay(run, official)
    found, wanted = logits(run, official["inputs"]), torch.as_tensor(official["logits"])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    assert torch.equal(found > 0, wanted > 0)
    truth = torch.as_tensor(official["targets"]).float()
    assert dice(found.sigmoid(), truth) == pytest.approx(0.89357, abs=1e-4)
    assert dice((found > 0).float(), truth) == pytest.approx(0.90202, abs=1e-4)


def test_fact_a11_without_turned_kernels_all_is_lost(run, official):
    with torch.no_grad():
        for level in run.method.network.levels:
            level.perceive.weight.copy_(level.perceive.weight.transpose(2, 3).clone())
    replay(run, official)
    assert float((logits(run, official["inputs"]) - torch.as_tensor(official["logits"])).abs().max()) > 1


def test_every_cell_acting(run, official):
    for level in run.method.network.levels:
        level.firing, level.update_rate = Stochastic(), 1.0
    torch.testing.assert_close(logits(run, official["inputs"][19:20])[0], torch.as_tensor(official["allfire"]), rtol=1e-4, atol=3e-3)


def test_mean_field(run, official):
    run = run.at(firing="expected")
    found, truth = logits(run, official["inputs"]), torch.as_tensor(official["targets"]).float()
    assert dice(found.sigmoid(), truth) == pytest.approx(0.8933, abs=1e-4)
    assert dice((found > 0).float(), truth) == pytest.approx(0.9008, abs=1e-4)


def test_the_slices_are_the_official_ones(run, official):
    record = run.record(IMAGE)
    slices = run.recipe.data.preprocess.image(record)
    assert slices.shape == (39, 1, 64, 64)
    np.testing.assert_allclose(slices[:, 0].numpy(), official["inputs"], rtol=0, atol=1e-5)
    linear = Preprocess(1, [64, 64], run.recipe.data.preprocess.normalise).image(record)
    assert np.abs(linear[:, 0].numpy() - official["inputs"]).max() > 0.05  # cubic is what makes the difference


def test_from_a_volume_to_its_mask(run):
    image, truth = nib.load(IMAGE), np.asarray(nib.load(LABEL).dataobj) > 0
    result = run.predict(IMAGE, members=1)
    assert result.mask.shape == image.shape == (38, 48, 39)
    assert set(np.unique(result.mask)) == {0, 1}
    assert result.members.shape == (1, 1, 38, 48, 39)
    assert dice((result.mask > 0).astype(float), truth.astype(float)) >= 0.85
    assert np.array_equal(result.record.geometry.affine, image.affine)


def test_what_the_folder_holds(folder):
    names = {"environment.json", "origin.json", "recipe.yaml", "training.json", "weights.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    origin = json.loads((folder / "origin.json").read_text())
    assert [one["file"] for one in origin["files"]] == ["model0.pth", "model1.pth"]
    assert tuple(one["sha256"] for one in origin["files"]) == SHA256
    assert "MIT" in origin["licence"]
    assert json.loads((folder / "environment.json").read_text())["weights"] == 70_016
    recipe = somite.load(folder, device="cpu").recipe
    assert (recipe.method.network.channels, recipe.method.network.updates) == (32, 16)
    assert recipe.data.mask_threshold == 1


def released():
    return [torch.load(path, map_location="cpu", weights_only=True) for path in CHECKPOINTS]


def saved(tmp_path, *levels):
    paths = [tmp_path / f"level{i}.pth" for i in range(len(levels))]
    for path, level in zip(paths, levels, strict=True):
        torch.save(level, path)
    return paths


def small(c, h):
    sizes = {"fc0.weight": (h, 3 * c), "fc0.bias": (h,), "fc1.weight": (c, h)}
    sizes |= {"p0.weight": (c, c, 3, 3), "p0.bias": (c,), "p1.weight": (c, c, 3, 3), "p1.bias": (c,)}
    return {name: torch.randn(size) for name, size in sizes.items()}


def test_sizes_come_from_the_checkpoints(tmp_path):
    levels = [small(8, 20), small(8, 20)]
    run = somite.load(import_run(saved(tmp_path, *levels), tmp_path / "run", "mednca"), device="cpu")
    for level, weights in zip(run.method.network.levels, levels, strict=True):
        assert torch.equal(level.act.weight, weights["fc1.weight"])
        assert torch.equal(level.think.weight, weights["fc0.weight"])
        assert torch.equal(level.perceive.weight[8:], weights["p1.weight"].transpose(2, 3))
        assert torch.equal(level.perceive.bias[:8], weights["p0.bias"])


class Stranger:
    """A pickle that runs code when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def without(level, name):
    return {key: value for key, value in level.items() if key != name}


BROKEN = {
    "lacks": (lambda w: without(w, "p1.bias"), "p1.bias"),
    "extra": (lambda w: {**w, "bn.weight": torch.ones(3)}, "bn.weight"),
    "shape": (lambda w: {**w, "p0.weight": torch.ones(32, 32, 7, 7)}, "p0.weight"),
    "flat": (lambda w: {**w, "fc1.weight": torch.ones(32)}, "fc1.weight"),
    "nan": (lambda w: {**w, "fc0.bias": torch.full((128,), float("nan"))}, "fc0.bias"),
    "nested": (lambda w: {"model": w}, "state dict"),
    "list": (lambda w: [1, 2], "state dict"),
    "other size": (lambda w: small(8, 20), "size"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_mednca_is_refused(tmp_path, change, words):
    first, second = released()
    paths = saved(tmp_path, first, change(second))
    with pytest.raises(InputError, match=words) as error:
        import_run(paths, tmp_path / "run", "mednca")
    assert str(paths[1]) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    bait = tmp_path / "bait"
    paths = saved(tmp_path, released()[0], {"fc0.weight": Stranger(bait)})
    with pytest.raises(InputError, match="run code") as error:
        import_run(paths, tmp_path / "run", "mednca")
    assert str(paths[1]) in str(error.value)
    assert "\n" not in str(error.value)
    assert not bait.exists()
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_read_are_refused(tmp_path):
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(CHECKPOINTS[1].read_bytes()[:1000])
    text = tmp_path / "text.pth"
    text.write_text("[project]")
    for path in (tmp_path / "missing.pth", truncated, text):
        with pytest.raises(InputError, match=path.name) as error:
            import_run([CHECKPOINTS[0], path], tmp_path / "run", "mednca")
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="takes 2 checkpoints, got 1"):
        import_run(CHECKPOINTS[:1], tmp_path / "run", "mednca")


def test_a_run_is_not_overwritten(tmp_path, folder):
    before = (folder / "recipe.yaml").read_bytes()
    with pytest.raises(InputError, match="another --out"):
        import_run(CHECKPOINTS, folder, "mednca")
    assert (folder / "recipe.yaml").read_bytes() == before
