"""Synthesis in latents from nothing but the data, and many images by several workers: the same files, whoever draws them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

import somite
from somite.cli import main
from somite.data.dataset import Data
from somite.data.phantoms import write_phantoms
from somite.diffusion.codec import Signed
from somite.engines import Ray
from somite.errors import InputError
from somite.generation import Part, asked, generate, listed
from somite.rng import seeded
from somite.tasks.synthesis import Synthesis

SMALL = ["--data.preprocess.size=[16,16]", "--training.steps=2", "--training.batch=2", "--training.validate=2"]
CELLS = ["hidden=4", "width=16", "heads=2", "mlp=16", "updates=2"]


def trained(recipe, root, out, *options):
    assert main(["train", recipe, f"--data.root={root}", *SMALL, *options, "--out", str(out)]) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """GeCA in the latents of an autoencoder that was trained on the same two classes of phantoms."""
    place = tmp_path_factory.mktemp("latents")
    root = write_phantoms(place / "data", 8, (16, 16))
    sizes = ["--method.network.channels=32", "--method.network.mults=[1,1]", "--method.network.blocks=1"]
    trained("autoencoder/images", root, place / "autoencoder", *sizes)
    cells = [f"--method.network.network.{one}" for one in CELLS]
    source = f"--method.codec.weights.source={place / 'autoencoder'}"
    trained("geca/latents", root, place / "run", source, "--method.sampler.steps=2", "--task.batch=2", *cells)
    weights = load_file(place / "run" / "weights.safetensors")  # two steps change little: nothing would depend on labels yet
    weights |= {name: 0.1 * torch.randn(value.shape) for name, value in weights.items() if name.startswith("network.")}
    save_file(weights, place / "run" / "weights.safetensors")
    return somite.load(place / "run", device="cpu")


def drawn(run, out, *options):
    assert main(["sample", str(run.path), "--out", str(out), "--device", "cpu", *map(str, options)]) == 0
    return {path.name: np.asarray(Image.open(path)) for path in (out / "images").glob("sample-*.png")}


def test_images_of_any_size_are_decoded_and_cut(run, tmp_path):
    """At 9 x 14 px the latents are 5 x 7, and what the autoencoder (as diffusers has it) makes of them is cut."""
    found = drawn(run, tmp_path / "odd", "-n", 1, "--size", 9, 14)["sample-00000.png"]
    assert found.shape == (9, 14, 3)
    labels = torch.eye(2)[:1]
    with seeded(0, ["sample/0/0"]):
        *_, last = run.method.trajectory({"labels": labels}, (1, 3, 9, 14))
    assert last.x.shape == (1, 4, 5, 7)
    state = load_file(run.path.parent / "autoencoder" / "weights.safetensors")
    kl = AutoencoderKL(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    kl.load_state_dict({name.removeprefix("network.autoencoder."): value for name, value in state.items()})
    with torch.no_grad():
        image = kl.decode(last.x / run.method.codec.scale).sample[0, :, :9, :14]
    want = (127.5 * (image.clamp(-1, 1) + 1)).permute(1, 2, 0).numpy()
    assert found.std() > 5
    np.testing.assert_allclose(found, want, atol=0.6)  # rounded to whole levels


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".png", ".csv", ".json")}


def test_heredity_is_a_switch_of_sampling(run, tmp_path):
    """Inherited numbers change the image, and beginning anew is what the recipe says."""
    found = {name: drawn(run, tmp_path / name, "-n", 1, "--heredity", name)["sample-00000.png"] for name in ("anew", "inherited")}
    own = drawn(run, tmp_path / "own", "-n", 1)["sample-00000.png"]
    assert np.array_equal(found["anew"], own)
    assert not np.array_equal(found["inherited"], own)


def test_guidance_is_a_switch_of_sampling(run, tmp_path):
    plain, guided = (drawn(run, tmp_path / value, "-n", 1, "--guidance", value)["sample-00000.png"] for value in ("1", "2"))
    assert not np.array_equal(plain, guided)


class Here:
    """An engine without processes, which keeps what it was asked for."""

    def __init__(self):
        self.parts = []

    def run(self, work, jobs):
        for part in jobs:
            self.parts.append(part)
            yield work(part)


def test_a_part_is_all_that_a_worker_must_know(run, tmp_path):
    labels, names = asked(run, 6, None)
    generate(run, tmp_path / "whole", 6, labels, names, first=3)
    engine = Here()
    (tmp_path / "parts" / "images").mkdir(parents=True)
    for name in ("sample-00007.png", "sample-00008.png"):
        shutil.copy(tmp_path / "whole" / "images" / name, tmp_path / "parts" / "images")
    generate(run, tmp_path / "parts", 6, labels, names, first=3, engine=engine)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert [part.rows for part in engine.parts] == [range(3, 5), range(5, 7)]  # the others were there
    assert engine.parts[1].labels == [[1.0, 0.0], [0.0, 1.0]]  # of images 5 and 6: the third and fourth that were asked for
    assert all(isinstance(part, Part) and part.run.is_absolute() and part.out.is_absolute() for part in engine.parts)


@pytest.mark.slow  # workers import torch anew, and Ray takes long to start
@pytest.mark.parametrize("engine", ["pool", "ray"])
def test_several_workers_draw_what_one_process_draws(engine, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(somite.__file__).parents[1]))
    options = ["-n", 5, "--seed", 3, "--guidance", 2]
    drawn(run, tmp_path / "here", *options)
    drawn(run, tmp_path / "there", *options, "--engine", engine, "--workers", 2)
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert len(files(tmp_path / "there")) == 5 + 3


def test_no_worker_is_refused(run, tmp_path, capsys):
    for engine in ("pool", "ray"):
        assert main(["sample", str(run.path), "--engine", engine, "--workers", "0", "--out", str(tmp_path / "x"), "--device", "cpu"]) == 2
        assert "--workers 0: at least 1 job" in capsys.readouterr().err
    with pytest.raises(InputError, match="--workers -1"):
        Ray(-1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "purple"], "--labels purple: the run knows large, small"),
        (["--labels", " , "], "names none: the run knows large, small"),
        (["--size", "0", "8"], "--size 0 8: an image has at least 1 px a side"),
        (["--first", "-2"], "--first -2: images are numbered from 0 on"),
    ],
)
def test_what_cannot_be_drawn_is_said(options, said, run, tmp_path, capsys):
    assert main(["sample", str(run.path), "--out", str(tmp_path / "x"), "--device", "cpu", *options]) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_of_a_thousand_labels_a_few_are_named():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list(map(str, range(1000)))).endswith("18, 19 ... 999 (1000 in all)")


def rewritten(root, header, row):
    """A labels.csv of these rows, one an image."""
    names = [path.stem for path in sorted((root / "images").iterdir())]
    (root / "labels.csv").write_text("\n".join([header, *(f"{name},{row}" for name in names)]) + "\n")


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [("id,melanoma", "1", "class 'not melanoma'"), ("id,a,b", "1,0", "class 'b'"), ("id,kind", "x", "one class alone (x)")],
)
def test_a_class_without_an_image_cannot_be_learned(header, row, said, tmp_path, capsys):
    root = write_phantoms(tmp_path / "data", 5, (8, 8))
    rewritten(root, header, row)
    assert main(["train", "dit/labels", f"--data.root={root}", *SMALL, "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1


def test_one_image_under_two_labels_is_told(tmp_path, capsys):
    root = write_phantoms(tmp_path / "data", 8, (8, 8))
    data = Data(str(root)).needing({"image", "labels"})
    first = data.cases("train")[0]
    other = next(case for case in data.cases("train") if case.labels != first.labels)
    shutil.copy(first.images[0], other.images[0])
    Synthesis(labelled=True).check(data, Signed(channels=3), [])
    assert f"{first.id} and {other.id} are the same image with different labels" in capsys.readouterr().out
    Synthesis().check(data, Signed(channels=3), [])
    assert not capsys.readouterr().out  # nobody asked for labels
