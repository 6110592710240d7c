"""A run as an ONNX file or a .pt2 gives the run's own answers, of images of sizes that it was not exported at."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import somite
from programs import COMPACT, NCA, answered, same, shaken
from somite.cli import main
from somite.data.images import read_image
from somite.data.sources import NUCLEI
from somite.errors import InputError
from somite.export.admit import admit, deterministic
from somite.export.fusing import known
from somite.export.graph import Graph
from somite.export.noise import noise
from somite.export.program import NOTICE, Program, check, looked
from somite.files import sha256
from somite.predict.fusion import Mean
from somite.predict.staple import Staple
from somite.predict.temperature import Tempered

IMAGES = sorted((NUCLEI / "images").glob("*.png"))[:2] + sorted((NUCLEI / "images").glob("*.jpg"))[:2]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = ["mask", "probability", "spread"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def cells(place):
    """An automaton that denoises, and its ONNX file."""
    path = shaken("medsegdiffnca/demo", place / "cells", *NCA)
    assert main(["export", str(path), "--format", "onnx", "--out", str(place / "cells-onnx")]) == 0
    return path, place / "cells-onnx" / "model.onnx"


@pytest.fixture(scope="module")
def classes(place):
    """A U-Net of three classes, feed-forward, at images' own sizes; as .pt2."""
    path = shaken("compact/feed-forward", place / "classes", *COMPACT)
    assert main(["export", str(path), "--format", "torch", "--out", str(place / "classes-torch")]) == 0
    return path, place / "classes-torch" / "model.pt2"


def test_a_controlled_threshold_is_the_programs_too(cells):
    """And not of an automaton whose cells were drawn when it was chosen, but of the one that is exported."""
    run = deterministic(somite.load(cells[0])).at(control={"threshold": 0.3, "risk": "fnr", "target": 0.1, "delta": 0.1})
    assert known(run.recipe.task.fusion)
    image = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        mask, probability, _ = Graph(run)(image, torch.randn(1, 2, 1, *looked(48, (40, 56))))
    assert torch.equal(mask, (probability[:, 0] >= 0.3).to(torch.uint8))
    assert (mask.bool() & (probability[:, 0] < 0.5)).sum() > 0


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_onnx_of_a_denoising_automaton(cells, path, monkeypatch):
    image = read_image(path)
    given = noise(3, 3, 1, looked(48, image.shape[1:]))
    session = onnxruntime.InferenceSession(cells[1])
    found = [part[0] for part in session.run(NAMES, {"image": image[None], "noise": given[None]})]
    same(dict(zip(NAMES, found, strict=True)), answered(cells[0], path, given, monkeypatch))


def test_each_of_a_batch_is_its_own(cells):
    session, image = onnxruntime.InferenceSession(cells[1]), read_image(IMAGES[0])[None]
    given = noise(0, 2, 1, looked(48, image.shape[2:]))[None]
    both = session.run(NAMES, {"image": np.concatenate([image, image[:, :, ::-1] / 2]), "noise": np.concatenate([given, given])})
    alone = session.run(NAMES, {"image": image, "noise": given})
    for one, two in zip(alone, both, strict=True):
        assert np.abs(one.astype(float)[0] - two[0]).max() < 1e-6


@pytest.mark.parametrize("path", IMAGES[:1] + IMAGES[2:3], ids=lambda path: path.stem)
def test_torch_of_classes(classes, path):
    opened = torch.export.load(classes[1]).module()
    image = torch.from_numpy(read_image(path))
    for rows, columns in ((160, 129), (128, 96)):  # of which the second needs no padding
        cut = image[:, :rows, :columns].contiguous()
        with torch.no_grad():
            found = {name: part[0].numpy() for name, part in zip(NAMES, opened(image=cut[None]), strict=True)}
        same(found, answered(classes[0], cut.numpy()))


def test_what_the_files_say(cells, classes):
    model = onnx.load(cells[1])
    told = {one.key: one.value for one in model.metadata_props}
    assert told["notice"] == NOTICE and told["somite"] == somite.__version__
    assert told["recipe_sha256"] == sha256(cells[0] / "recipe.yaml") and json.loads(told["classes"]) == [0, 1]
    assert json.loads(told["normalise"])["class"] == "Percentile" and json.loads(told["firing"]) == ["Expected"]
    axes = {one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in model.graph.input}
    assert axes == {
        "image": ["batch", "channels", "height", "width"],
        "noise": ["batch", "members", 1, "grid_height", "grid_width"],
    }
    (mask, *_) = model.graph.output
    assert [dim.dim_param for dim in mask.type.tensor_type.shape.dim] == ["batch", "height", "width"]
    more = {"somite.json": ""}
    torch.export.load(classes[1], extra_files=more)
    assert json.loads(more["somite.json"])["classes"] == [0, 1, 2]
    for file in (cells[1], classes[1]):
        assert str(Path(somite.__file__).parent).encode() not in file.read_bytes()


@pytest.mark.parametrize("which", ["cells", "classes"])
def test_the_readmes_lines(which, request, monkeypatch):
    """They need no somite."""
    _, file = request.getfixturevalue(which)
    monkeypatch.chdir(file.parent)
    picture = Image.open(IMAGES[0]).convert("RGB").crop((0, 0, 61, 40))
    picture.save("image.png")
    (code,) = CODE.findall(Path("README.md").read_text(encoding="utf-8"))
    assert "import somite" not in code
    exec(compile(code, "README.md", "exec"), {})
    assert np.asarray(Image.open("mask.png")).shape == (40, 61)


def test_a_program_that_answers_otherwise_is_not_written(classes):
    run = somite.load(classes[0], device="cpu")
    graph = Graph(run)
    made = Program(run, graph, None, {})  # type: ignore[arg-type]

    def answer(by, flipped):
        @torch.no_grad()
        def given(inputs):
            mask, probability, spread = graph(**inputs)
            return {"mask": mask.roll(flipped, 2), "probability": probability + by, "spread": spread}

        return given

    assert check(made, answer(0.0, 0), "it") == 0
    for wrong in (answer(0.01, 0), answer(0.0, 1)):
        with pytest.raises(InputError, match="answers otherwise than the run"):
            check(made, wrong, "it")

    def stopped(_):
        raise RuntimeError("Concat: 19 and 20")

    with pytest.raises(InputError, match=r"it has no answer for an image of 64 x 96 pixels \(Concat: 19 and 20\), so it was not written"):
        check(made, stopped, "it")


def test_what_is_there_is_left_alone(classes, tmp_path, refused):
    (tmp_path / "a.pt2").write_text("mine")
    refused(["export", classes[0], "--format", "torch", "--out", tmp_path / "a.pt2"], "a.pt2 is there already; choose another --out")
    assert (tmp_path / "a.pt2").read_text() == "mine"


def test_a_failure_leaves_nothing(classes, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr("somite.export.programs.program", broken)
    for out in ("a", "a.pt2"):
        with pytest.raises(RuntimeError):
            main(["export", str(classes[0]), "--format", "torch", "--out", str(tmp_path / out)])
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_told(classes, tmp_path, monkeypatch, refused):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    refused(["export", classes[0], "--format", "onnx", "--out", tmp_path / "o"], "onnxscript: pip install 'somite[export]'")


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("medsegdiffnca/demo", [*NCA, "--method.sampler.steps=10"], "takes 10 reverse steps; add --steps 1"),
        ("medsegdiffnca/demo", [*NCA, "--data.preprocess.cubic=true"], "preprocess.cubic"),
        ("medsegdiffnca/demo", [*NCA, "--data.preprocess.orientation=RAS"], "orientation or above, which a file's header decides"),
        ("medsegdiffnca/hippocampus", [], "works on volumes, and only 2D runs"),
        ("geca/small", [], "its task is Synthesis"),
        ("medsegdiffnca/demo", [*NCA, "--task.fusion=somite.predict.staple.Staple"], "its fusion is Staple, which is no formula"),
        ("geca/segment", ["--method.network.width=16", "--method.network.mlp=16"], "GeCA looks only at cells that act"),
    ],
    ids=["steps", "cubic", "orientation", "volumes", "synthesis", "fusion", "acting"],
)
def test_refusals(recipe, overrides, words, tmp_path, refused):
    path = shaken(recipe, tmp_path / "run", *overrides)
    refused(["export", path, "--format", "torch", "--out", tmp_path / "out"], "cannot be exported as one program", words)
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_one_step_of_many_is_what_sampling_takes(tmp_path, monkeypatch):
    path = shaken("medsegdiffnca/demo", tmp_path / "run", *NCA, "--method.sampler.steps=10")
    run = deterministic(somite.load(path, device="cpu").at(steps=1))
    admit(run)
    image = read_image(IMAGES[0])
    given = noise(0, 2, 1, looked(48, image.shape[1:]))
    with torch.no_grad():
        found = Graph(run)(image=torch.from_numpy(image)[None], noise=torch.from_numpy(given)[None])
    same({name: part[0].numpy() for name, part in zip(NAMES, found, strict=True)}, answered(path, IMAGES[0], given, monkeypatch, steps=1))


AUTOMATON = ["--method.network.hidden=16", "--data.preprocess.size=96"]
SMALL = ["--method.network.channels=16", "--method.network.hidden=16", "--method.network.updates=3"]
SLOW = {  # overrides, and how far weights are moved
    "compact/feed-forward": ([], 0.05),
    "compact/one-step": ([], 0.05),
    "dynunet/demo": ([], 0.05),
    "ensemdiff/small": ([], 0.05),
    "mednca/hippocampus": ([*AUTOMATON, "--data.preprocess.cubic=false", "--method.network.updates=3"], 0.15),
    "medsegdiffnca/best": ([], 0.05),
    "medsegdiffnca/feed-forward": (SMALL, 0.05),
    "medsegdiffnca/one-step": (SMALL, 0.05),
    "medsegdiffnca/small": ([], 0.05),
    "octreenca/images": ([*AUTOMATON, "--method.network.levels=2", "--method.network.updates=[1,1]"], 0.05),
    "segdiff/small": (["--method.network.rrdb_blocks=2"], 0.05),
    "segformer/images": (["--data.preprocess.size=64"], 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SLOW)
def test_recipes(recipe, tmp_path, monkeypatch):
    """At sizes that they were not exported at, of which one needs no padding; in one reverse step."""
    overrides, by = SLOW[recipe]
    path = shaken(recipe, tmp_path / "run", *overrides, by=by)
    steps = getattr(somite.load(path, device="cpu").method, "steps", 1)
    asked = ["--steps", "1"] if steps > 1 else []
    assert main(["export", str(path), "--format", "onnx", "--out", str(tmp_path / "run.onnx"), *asked]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "run.onnx")
    told = session.get_modelmeta().custom_metadata_map
    for file, (rows, columns) in zip(IMAGES[:2], [(160, 129), (128, 96)], strict=True):
        image = np.ascontiguousarray(read_image(file)[:, :rows, :columns])
        size = looked(json.loads(told["size"]), image.shape[1:])
        given, more = None, {}
        if "noise" in told["inputs"]:
            given = noise(0, 2, int(told["noise_channels"]), size)
            more = {"noise": given[None]}
        elif "grid" in told["inputs"]:
            more = {"grid": np.zeros(size, np.float32)}
        found = [part[0] for part in session.run(NAMES, {"image": image[None], **more})]
        same(dict(zip(NAMES, found, strict=True)), answered(path, image, given, monkeypatch, **({"steps": 1} if asked else {})))


def test_staple_and_tempered_are_told_apart():
    assert known(Tempered(2.0, Mean())) and not known(Tempered(2.0, Staple()))
