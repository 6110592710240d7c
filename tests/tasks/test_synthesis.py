"""Synthesis through train, sample, evaluate and report; image i is a function of (seed, i), whoever draws it and in whatever part."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist, pdist

import somite
from regression import write_images
from runs import classifier, tiny
from somite.cli import main
from somite.contracts import TaskContract
from somite.data.dataset import Data
from somite.data.phantoms import write_phantoms
from somite.diffusion.codec import Signed
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Noise
from somite.errors import InputError
from somite.evaluation import table
from somite.generation import runs_of
from somite.metrics.generation import kid, manifold
from somite.networks.geca import GeCA
from somite.report.findings import evaluation
from somite.tasks.synthesis import Synthesis
from somite.tasks.synthesis.looks import sheet

TINY = {"target_channels": 3, "hidden": 4, "width": 16, "heads": 2, "mlp": 16, "updates": 2, "learn_variance": False}


class TestContract(TaskContract):
    def make(self):
        return Synthesis()

    def data(self, folder):
        return Data(str(write_images(folder / "images", 10, (8, 8))))

    def method(self):
        torch.manual_seed(0)
        network = GeCA(**TINY)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.1)
        return Diffusion(network, linear(50), {"noise": Noise()}, DDIM(2), Signed(channels=3), "v")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("synthesis")
    write_images(place / "images", 40, (12, 12))
    small = [f"--method.network.{name}={str(value).lower()}" for name, value in TINY.items()]
    options = ["--data.preprocess.size=[8,8]", "--training.steps=3", "--training.batch=2", "--method.sampler.steps=2"]
    assert main(["train", "geca/small", f"--data.root={place / 'images'}", *small, *options, "--out", str(place / "run")]) == 0
    return somite.load(place / "run", device="cpu")


def drawn(run, out, *options):
    assert main(["sample", str(run.path), "--out", str(out), "--device", "cpu", *map(str, options)]) == 0
    return {path.name: np.asarray(Image.open(path)) for path in (out / "images").glob("sample-*.png")}


def test_an_image_is_a_function_of_the_seed_and_its_number(run, tmp_path):
    ten = drawn(run, tmp_path / "ten", "-n", 10)
    assert sorted(ten) == [f"sample-{i:05d}.png" for i in range(10)]
    part = drawn(run, tmp_path / "part", "-n", 3, "--first", 5)
    assert all(np.array_equal(part[name], ten[name]) for name in part) and len(part) == 3
    other = drawn(run, tmp_path / "other", "-n", 2, "--seed", 1)
    assert not np.array_equal(other["sample-00000.png"], ten["sample-00000.png"])
    (tmp_path / "ten" / "images" / "sample-00004.png").unlink()
    kept = (tmp_path / "ten" / "images" / "sample-00003.png").stat().st_mtime_ns
    assert np.array_equal(drawn(run, tmp_path / "ten", "-n", 10)["sample-00004.png"], ten["sample-00004.png"])
    assert (tmp_path / "ten" / "images" / "sample-00003.png").stat().st_mtime_ns == kept
    assert [row["id"] for row in csv.DictReader((tmp_path / "ten" / "labels.csv").open())] == [name[:-4] for name in sorted(ten)]


def test_any_size_and_number_of_updates(run, tmp_path, capsys):
    larger = drawn(run, tmp_path / "larger", "-n", 1, "--size", 9, 14, "--updates", 3, "--steps", 1)
    assert larger["sample-00000.png"].shape == (9, 14, 3)
    told = json.loads((tmp_path / "larger" / "sampling.json").read_text())
    assert told["size"] == [9, 14] and told["steps"] == 1 and any("updates=3" in text for text in told["overrides"])
    assert main(["sample", str(run.path), "--out", str(tmp_path / "larger"), "--device", "cpu"]) == 2
    assert "drawn otherwise" in capsys.readouterr().err
    assert main(["sample", str(run.path), "--out", str(tmp_path / "x"), "-n", "0", "--device", "cpu"]) == 2
    assert main(["sample", str(run.path), "--out", str(tmp_path / "x"), "--guidance", "2", "--device", "cpu"]) == 2
    assert "not guided" in capsys.readouterr().err


def test_sets_are_compared_by_named_features(run, monkeypatch):
    monkeypatch.setattr("somite.tasks.synthesis.sheets.UPDATES", (1, 5))
    summary = run.evaluate()
    assert summary["extractor"] == "pixels 8 x 8"
    rows = list(csv.DictReader((run.path / "features.csv").open()))
    real, made = (np.array([[float(r[f"f{i}"]) for i in range(192)] for r in rows if r["kind"] == kind]) for kind in ("real", "generated"))
    assert len(real) == len(made) == len(run.recipe.data.cases("test"))
    assert summary["sets"]["kid"]["mean"] == pytest.approx(kid(real, made), rel=1e-3)
    assert summary["sets"]["recall"]["mean"] == pytest.approx(manifold(real, made)["recall"])
    case = run.recipe.data.read(run.recipe.data.cases("test")[0])
    image = run.recipe.data.preprocess.image(case)
    np.testing.assert_allclose(real[0], image.flatten().numpy(), atol=1e-4)  # at 8 x 8 the pixels themselves
    assert summary["sets"]["diversity"]["mean"] == pytest.approx(pdist(made).mean() / pdist(real).mean(), rel=1e-3)
    assert all(one["by"] == "pixels 8 x 8" for one in summary["sets"].values())
    assert table(summary).count("by pixels 8 x 8") == len(summary["sets"])
    train = run.recipe.data.cases("train")
    known = np.array([run.recipe.data.preprocess.image(run.recipe.data.read(case)).flatten().numpy() for case in train])
    with (run.path / "neighbours.csv").open() as file:
        found = list(csv.DictReader(file))
    for kind, vectors in (("held out", real), ("generated", made)):
        apart = cdist(vectors, known)
        mine = [row for row in found if row["kind"] == kind]
        assert [row["nearest"] for row in mine] == [train[i].id for i in apart.argmin(1)]
        np.testing.assert_allclose([float(row["distance"]) for row in mine], apart.min(1), rtol=1e-3)
    assert sorted(path.name for path in (run.path / "answers").iterdir()) == sorted(f"{row['case']}_generated-00.png" for row in mine)
    report = run.report().read_text()
    for shown in ("KID (pixels 8 x 8)", "Real and generated", "One noise under M updates", "The way of one sample", "Nearest neighbours"):
        assert shown in report


def test_a_generator_that_copies_is_told(run, tmp_path, monkeypatch):
    data = run.recipe.data
    train = data.cases("train")
    chosen = {case.id: train[(7 * index) % len(train)] for index, case in enumerate(data.cases("test"))}
    copied = lambda method, cond, shape, case, *_: data.preprocess.image(data.read(chosen[case]))[None]  # noqa: E731
    monkeypatch.setattr("somite.tasks.synthesis.sample", copied)
    summary = run.evaluate(out=tmp_path)
    assert summary["sets"]["memorised"]["mean"] == summary["sets"]["copied"]["mean"] == 1
    with (tmp_path / "neighbours.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "generated"]
    assert {row["case"]: row["nearest"] for row in rows} == {case: other.id for case, other in chosen.items()}
    assert all(float(row["distance"]) == 0 for row in rows)


def test_other_data_are_held_against_what_the_run_was_trained_on(run, tmp_path, capsys):
    elsewhere = run.on(str(write_images(tmp_path / "images", 40, (12, 12))))
    assert elsewhere.trained_on is run.recipe.data
    there = elsewhere.evaluate(out=tmp_path / "there")
    assert there["sets"]["memorised"]["chance"] == pytest.approx(1 / (1 + len(elsewhere.recipe.data.cases("test"))))
    gone = replace(run, home=run.recipe.data.moved(str(tmp_path / "gone")))
    assert gone.trained_on is not run.recipe.data
    capsys.readouterr()
    summary = gone.evaluate(out=tmp_path / "here")
    assert "memorisation is not measured" in capsys.readouterr().out
    assert {"kid", "diversity"} <= set(summary["sets"]) and "memorised" not in summary["sets"]
    assert not (tmp_path / "here" / "neighbours.csv").exists()
    assert any("not measured" in lead for lead, _ in gone.recipe.task.view(evaluation(gone.path, tmp_path / "here")).notes)


def test_the_score_that_training_follows_draws_the_same_each_time(run):
    sample = run.recipe.data.loaded(run.recipe.data.cases("val")[0])
    first, again = (run.recipe.task.glimpse(run.method, sample, "a") for _ in range(2))
    assert first.score == again.score
    assert torch.equal(first.panels["generated"], again.panels["generated"])


def test_other_runs_make_no_images(tmp_path, capsys):
    out = tiny(write_phantoms(tmp_path / "data", 6, (24, 24)), tmp_path / "run", "--training.steps=2", "--data.crop=16")
    assert main(["sample", str(out), "--out", str(tmp_path / "x"), "--device", "cpu"]) == 2
    assert "no run of synthesis" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--extractor", str(tmp_path), "--device", "cpu"]) == 2
    assert "compares no images" in capsys.readouterr().err


def test_rows_go_together_as_far_as_a_batch_allows():
    assert runs_of([0, 1, 2, 5, 6, 9], 2) == [range(0, 2), range(2, 3), range(5, 7), range(9, 10)]


def test_a_sheet_is_rows_of_images():
    made = np.asarray(sheet([np.full((2, 3), value, np.uint8) for value in (10, 20, 30)], columns=2, gap=1))
    assert made.shape == (5, 7, 3)
    assert made[0, 0, 0] == 10 and made[0, 4, 0] == 20 and made[3, 0, 0] == 30 and made[3, 4, 0] == 255


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Two classes of phantoms, small and large, told by a labels.csv."""
    place = tmp_path_factory.mktemp("labelled")
    root = write_phantoms(place / "data", 8, (8, 8))
    small = [f"--method.network.network.{name}={str(value).lower()}" for name, value in TINY.items()]
    options = ["--data.preprocess.size=[8,8]", "--training.steps=3", "--training.batch=2", "--method.sampler.steps=2"]
    assert main(["train", "geca/labels", f"--data.root={root}", *small, *options, "--out", str(place / "run")]) == 0
    return somite.load(place / "run", device="cpu")


def test_labels_are_asked_for(labelled, tmp_path, capsys):
    names = labelled.recipe.data.classes
    assert len(names) == labelled.method.network.network.y_embedder.classes == 2
    turn = drawn(labelled, tmp_path / "turn", "-n", 4)
    with (tmp_path / "turn" / "labels.csv").open() as file:
        assert [[row[name] for name in names] for row in csv.DictReader(file)] == [["1", "0"], ["0", "1"]] * 2
    first = drawn(labelled, tmp_path / "first", "-n", 4, "--labels", names[0])
    same = [np.array_equal(first[name], turn[name]) for name in sorted(turn)]
    assert same[0] and same[2]  # images 0 and 2 were of that class already
    unguided = drawn(labelled, tmp_path / "unguided", "-n", 1, "--labels", names[0], "--guidance", 0)
    other = drawn(labelled, tmp_path / "other", "-n", 1, "--labels", names[1], "--guidance", 0)
    assert np.array_equal(unguided["sample-00000.png"], other["sample-00000.png"])  # guidance 0 looks at no labels
    assert main(["sample", str(labelled.path), "--labels", "purple", "--out", str(tmp_path / "x"), "--device", "cpu"]) == 2
    assert f"the run knows {', '.join(names)}" in capsys.readouterr().err


def test_another_extractor_is_named_at_evaluation(labelled, tmp_path, capsys, monkeypatch):
    """By a classifier, over all cases: those trained on are no held-out ones."""
    monkeypatch.setattr("somite.tasks.synthesis.sheets.UPDATES", ())
    judge, out = classifier(tmp_path / "classifier", "--data.preprocess.size=[16,16]"), tmp_path / "all"
    options = ["--extractor", str(judge), "--split", "all", "--device", "cpu", "--out", str(out)]
    assert main(["evaluate", str(labelled.path), *options]) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["extractor"].startswith("classifier ResNet ")
    assert f"by {summary['extractor']}" in capsys.readouterr().out
    data = labelled.recipe.data
    held_out = {case.id for case in data.cases("all")} - {case.id for case in data.cases("train")}
    with (out / "neighbours.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows if row["kind"] == "held out"} == held_out
    assert summary["sets"]["memorised"]["chance"] == pytest.approx(1 / (1 + len(held_out)))
    assert "extractor: null" in (labelled.path / "recipe.yaml").read_text()
    report = (out / "report.html").read_text()
    assert f"KID ({summary['extractor']})" in report and "a line a class" in report
    with pytest.raises(InputError, match="nowhere, which is not here"):
        labelled.at(extractor=str(tmp_path / "nowhere"))


def test_a_run_without_labels_is_asked_for_none(run, tmp_path, capsys):
    assert main(["sample", str(run.path), "--labels", "a", "--out", str(tmp_path / "x"), "--device", "cpu"]) == 2
    assert "trained without labels" in capsys.readouterr().err
