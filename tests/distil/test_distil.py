"""The whole way on phantoms, with a teacher whose every probability is known: logits linear in the colours of a pixel."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import somite
from known import RECIPE, SLOPE
from runs import TINY
from somite.cli import main
from somite.data.images import read_image
from somite.data.phantoms import write_phantoms
from somite.evaluation import evaluate
from somite.metrics.intervals import paired
from somite.pipeline import Run
from somite.recipe import build, dump, parse


def recipe(folder: Path, name: str = "linear") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE)
    return path


def made(out: Path, root: Path, *overrides: str) -> Path:
    """A run folder of the known network, that says it was trained on the data in `root`."""
    config = parse(recipe(out), [f"--data.root={root}", "--method.network.known=true", *overrides])
    (out / "recipe.yaml").write_text(dump(config))
    save_file(build(config).method.state_dict(), out / "weights.safetensors")
    return out


def bare(root: Path, *args, **options) -> Path:
    folder = write_phantoms(root, *args, **options)
    for name in ("masks", "splits.json", "groups.csv", "labels.csv"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    write_phantoms(place / "mine", 10, (16, 20))
    write_phantoms(place / "theirs", 10, (16, 20), seed=9)
    bare(place / "more", 4, (16, 20), seed=5)
    made(place / "teacher", place / "theirs")
    return place


def line(place, out, *more, teacher="teacher", into=None, root="mine"):
    given = (f"--data.root={place / root}", "--out", out, "--trust", "--device", "cpu", *more)
    return [str(part) for part in ("distil", place / teacher, "--into", into or recipe(place), *given)]


@pytest.fixture(scope="module")
def taught(place):
    """A pupil, and beside it another untaught."""
    assert main(line(place, place / "pupil", "--unlabelled", place / "more", "--compare")) == 0
    return place / "pupil"


def weights(run):
    return load_file(run / "weights.safetensors")


def test_the_teacher_answers_every_training_image_once_on_its_own_grid(place, taught, monkeypatch, capsys):
    splits = json.loads((place / "mine" / "splits.json").read_text())
    paths = {name: place / "mine/images" / f"{name}.png" for name in splits["train"]}
    paths |= {f"unlabelled-{path.stem}": path for path in sorted((place / "more/images").iterdir())}
    assert {path.name for path in (taught / "soft").glob("*.png")} == {f"{name}_probability.png" for name in paths}
    for name, path in paths.items():
        image = np.asarray(Image.open(path)).astype(np.float64) / 255
        wanted = 1 / (1 + np.exp(-image @ np.array(SLOPE)))
        np.testing.assert_allclose(read_image(taught / "soft" / f"{name}_probability.png")[0], wanted, rtol=0, atol=2e-5)
    before = {path: path.stat().st_mtime_ns for path in taught.rglob("*") if path.is_file()}
    monkeypatch.setattr(Run, "answer", lambda *_, **__: pytest.fail("all is there"))
    assert main(line(place, taught, "--unlabelled", place / "more")) == 0
    assert "nothing to do" in capsys.readouterr().out
    written = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert written <= {taught / "README.md"}
    assert main(line(place, taught, "--unlabelled", place / "more", teacher="gone")) == 0


def test_the_pupil_is_an_ordinary_run_that_needs_no_teacher(place, taught, tmp_path):
    alone = shutil.copytree(taught, tmp_path / "alone", ignore=shutil.ignore_patterns("soft", "teacher", "untaught"))
    told = (alone / "recipe.yaml").read_text().replace(str(place / "more"), "gone").replace(str(taught), "gone")
    (alone / "recipe.yaml").write_text(told)
    image = next((place / "mine/images").iterdir())
    assert main(["predict", str(alone), str(image), "--out", str(tmp_path / "out"), "--trust"]) == 0
    assert main(["evaluate", str(alone), "--trust"]) == 0
    assert (alone / "report.html").is_file()
    assert main(["evaluate", str(alone), "--trust", "--data", str(place / "theirs"), "--out", str(tmp_path / "there")]) == 0


def test_the_loss_is_the_mixture_that_was_asked_for(place, tmp_path):
    """One step of one batch, whose gradient torch gives: of the masks with 0.7, of the teacher's probabilities with 0.3."""
    out, steps = tmp_path / "pupil", ["--training.steps=1", "--training.batch=6", "--training.optimizer=sgd", "--training.clip=1e9"]
    assert main(line(place, out, "--weight", "0.3", "--temperature", "2", *steps)) == 0
    splits = json.loads((place / "mine" / "splits.json").read_text())
    total = torch.zeros(3)
    for name in splits["train"]:
        image = torch.from_numpy(np.array(Image.open(place / "mine/images" / f"{name}.png"))).double() / 255
        mask = torch.from_numpy(np.array(Image.open(place / "mine/masks" / f"{name}.png"))).double() / 255
        teacher = torch.sigmoid(image @ torch.tensor(SLOPE, dtype=torch.double) / 2)
        slope = torch.zeros(3, dtype=torch.double, requires_grad=True)
        logits = image @ slope
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        loss = 0.7 * bce(logits, mask) + 0.3 * 4 * bce(logits / 2, teacher)
        total += torch.autograd.grad(loss, slope)[0].float() / 6
    rate = 0.1 * 1.99  # the first step of Nesterov's momentum 0.99
    torch.testing.assert_close(weights(out)["network.slope"][0], -rate * total, rtol=1e-3, atol=1e-6)


def test_unlabelled_images_change_the_pupil_by_the_teacher_alone(place, tmp_path):
    outs = [tmp_path / name for name in ("with", "without")]
    assert main(line(place, outs[0], "--unlabelled", place / "more")) == 0
    assert main(line(place, outs[1])) == 0
    assert not torch.equal(*(weights(out)["network.slope"] for out in outs))


def test_from_unlabelled_images_and_no_mask_the_pupil_learns_the_teacher(place, tmp_path):
    """Where the teacher has the whole loss, masks count for nothing: turned round, they give the same pupil to the bit."""
    turned = shutil.copytree(place / "mine", tmp_path / "turned")
    for path in (turned / "masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    outs = [tmp_path / name for name in ("a", "b")]
    more = ("--unlabelled", place / "more", "--weight", "1", "--training.steps=60", "--training.validate=60", "--training.rate=0.3")
    for out, root in zip(outs, (place / "mine", turned), strict=True):
        assert main(line(place, out, *more, root=root)) == 0
    ours, theirs = (torch.load(out / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for out in outs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    found, image = weights(outs[0]), read_image(next((place / "mine/images").iterdir()))
    pupil, teacher = (1 / (1 + np.exp(-np.tensordot(slope, image, 1) - bias)) for slope, bias in
                      ((found["network.slope"][0].numpy(), float(found["network.bias"])), (np.array(SLOPE), 0.0)))  # fmt: skip
    assert np.abs(pupil - teacher).mean() < 0.4 * np.abs(0.5 - teacher).mean()


def test_a_diffusion_of_one_step_is_taught_as_well_and_goes_on_to_the_same_bits(place, tmp_path, monkeypatch):
    """Stopped among the teacher's answers, then in training: all that is random is on."""
    settings = [
        *TINY,
        "--data.crop=16",
        "--training.steps=6",
        "--training.validate=3",
        "--training.checkpoint=1",
        "--method.network.dropout=0.2",
    ]

    def asked(out, *steps):
        return line(place, out, "--unlabelled", place / "more", "--temperature", "2", *settings, *steps, into="medsegdiffnca/demo")

    assert main(asked(tmp_path / "straight")) == 0
    out, answer, count = tmp_path / "stopped", Run.answer, iter(range(100))

    def stopping(*args, **options):
        if next(count) == 3:
            raise KeyboardInterrupt
        return answer(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "answer", stopping)
        assert main(asked(out)) == 130
    assert len(list((out / "soft").glob("*.png"))) == 3
    loss, steps = somite.diffusion.methods.Diffusion.loss, iter(range(100))

    def interrupted(*args):
        if next(steps) == 4:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr("somite.diffusion.methods.Diffusion.loss", interrupted)
        assert main(asked(out)) == 130
    assert (out / "checkpoints/last.ckpt").is_file()
    assert main(asked(out)) == 0
    assert (out / "weights.safetensors").read_bytes() == (tmp_path / "straight" / "weights.safetensors").read_bytes()
    assert (out / "metrics.csv").read_text() == (tmp_path / "straight" / "metrics.csv").read_text()


def test_the_comparison_is_of_the_same_cases_with_intervals(place, taught):
    with (taught / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tables = {}
    for name, folder in (("taught", taught), ("untaught", taught / "untaught"), ("teacher", taught / "teacher")):
        with (folder / "rows.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    assert {row["comparison"] for row in rows} == {"taught - untaught", "taught - teacher", "untaught - teacher"}
    for row in rows:
        first, second = row["comparison"].split(" - ")
        ours, theirs = ([float(one[row["metric"]]) for one in tables[name]] for name in (first, second))
        found = paired(ours, theirs, [one["group"] for one in tables[first]])
        assert float(row["mean"]) == pytest.approx(found.difference.mean, rel=1e-4, abs=1e-5)
    page = (taught / "comparison.md").read_text()
    assert page.startswith("# ") and "## taught - untaught" in page and "| teacher | 4 |" in page
    untaught = somite.load(taught / "untaught", trust=True)
    assert untaught.data.soft is None and "taught" not in untaught.method.terms
    assert untaught.recipe.training.seed == somite.load(taught, trust=True).recipe.training.seed


def test_the_untaught_pupil_is_what_train_makes(place, taught, tmp_path):
    assert main(["train", str(recipe(place)), f"--data.root={place / 'mine'}", "--out", str(tmp_path / "plain")]) == 0
    assert (taught / "untaught/weights.safetensors").read_bytes() == (tmp_path / "plain/weights.safetensors").read_bytes()


def test_the_teacher_is_scored_as_it_scores_itself(place, taught, tmp_path):
    run = somite.load(place / "teacher", trust=True, device="cpu").on(str(place / "mine"))
    found = evaluate(run, "test", tmp_path / "self")["metrics"]["dice"]["mean"]
    assert json.loads((taught / "teacher/metrics.json").read_text())["metrics"]["dice"]["mean"] == found


def test_the_comparison_is_not_made_twice(place, taught, monkeypatch, capsys):
    monkeypatch.setattr(Run, "answer", lambda *_, **__: pytest.fail("all is there"))
    before = (taught / "comparison.csv").read_bytes()
    assert main(line(place, taught, "--unlabelled", place / "more", "--compare")) == 0
    assert "## taught - untaught" in capsys.readouterr().out
    assert (taught / "comparison.csv").read_bytes() == before


def test_folds_teach_by_their_mean(place, tmp_path):
    other = made(tmp_path / "other", place / "theirs")
    save_file({name: -part for name, part in weights(other).items()}, other / "weights.safetensors")
    assert main(line(place, tmp_path / "out", "--with", other)) == 0
    for path in (tmp_path / "out/soft").glob("*.png"):
        np.testing.assert_allclose(read_image(path), 0.5, rtol=0, atol=2e-5)  # p and 1 - p


def test_classes_are_taught_too(place, tmp_path):
    root = write_phantoms(tmp_path / "classes", 6, (16, 16), classes=2)
    three = ["--data.labels=[0,1,2]", "--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3", "--method.network.maps=3"]
    made(tmp_path / "teacher", place / "theirs", *three)
    assert main(line(place, tmp_path / "out", *three, teacher=tmp_path / "teacher", root=root)) == 0
    assert len(list((tmp_path / "out/soft").glob("case000_probability-*.png"))) == 3
