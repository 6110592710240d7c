"""Classes told apart through train, a stop, evaluate, predict, calibrate and the report; its numbers by other means."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from scipy.special import softmax
from torchmetrics import functional as tm

import somite
from somite.cli import main
from somite.contracts import TaskContract
from somite.data.dataset import Data
from somite.data.images import write_png
from somite.data.phantoms import write_phantoms
from somite.data.record import Case, Record
from somite.diffusion.classes import AnyOf, OneOf
from somite.diffusion.methods import FeedForward
from somite.errors import InputError
from somite.networks.classifier import ResNet
from somite.predict.fusion import Mean
from somite.predict.temperature import Tempered
from somite.recipe import build, parse, path_of, settled
from somite.tasks.classification import Classification
from somite.tasks.classification.answer import Classified
from somite.tasks.classification.whole import conclude

SMALL = [
    "--method.network.channels=[4,8,8,8]",
    "--data.preprocess.size=[24,24]",
    "--training.batch=4",
    "--training.steps=6",
    "--training.validate=3",
    "--training.warmup=1",
]
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def coloured(root, several=False, n=24):
    """Images whose colours are their labels, by a table: one class each, or any number of labels."""
    rows, names = [], list(COLOURS)
    for index in range(n):
        has = [index % 3 == c for c in range(3)] if not several else [bool(index >> c & 1) for c in range(3)]
        noise = np.random.default_rng(index).integers(0, 30, (20, 16, 3))
        colour = sum((np.array(COLOURS[name]) for name, there in zip(names, has, strict=True) if there), np.zeros(3))
        write_png(root / "images" / f"i{index:02d}.png", np.clip(colour + noise, 0, 255).astype(np.uint8))
        split = ("test", "val", "train", "train")[index // 2 % 4]
        rows.append([f"i{index:02d}", f"p{index // 2}", split, *(map(int, has) if several else [names[has.index(True)]])])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "group", "split", *(names if several else ["colour"])], *rows])
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coloured(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    line = ["train", "classifier/small", f"--data.root={data}", *SMALL, "--training.steps=40", "--training.rate=0.01", "--out", str(out)]
    assert main([*line, "--training.validate=20"]) == 0
    return out


def test_the_recipe_knows_its_classes(path, data):
    tree = yaml.safe_load((path / "recipe.yaml").read_text())
    assert tree["data"]["classes"] == ["blue", "green", "red"]
    assert (
        tree["method"]["init_args"]["network"]["init_args"]["classes"] == tree["method"]["init_args"]["codec"]["init_args"]["classes"] == 3
    )
    line = ["train", "classifier/small", f"--data.root={data}", *SMALL, "--training.steps=40", "--training.rate=0.01", "--out", str(path)]
    assert main([*line, "--training.validate=20"]) == 0  # the same line is the same recipe


def test_scores_are_torchmetrics(path):
    assert main(["evaluate", str(path)]) == 0
    found = json.loads((path / "metrics.json").read_text())
    run = somite.load(path, device="cpu")
    cases = run.recipe.data.cases("test")
    with torch.no_grad():
        images = torch.cat([run.recipe.data.loaded(case)["image"] for case in cases])
        p = run.method.network(
            torch.zeros(len(cases), 3), torch.zeros(len(cases), dtype=torch.long), run.method.network.encode({"image": images})
        ).value.softmax(1)
    truth = torch.tensor([case.labels.index(1.0) for case in cases])
    task = {"task": "multiclass", "num_classes": 3}
    assert found["metrics"]["correct"]["mean"] == pytest.approx(float(tm.accuracy(p, truth, average="micro", **task)))
    assert found["metrics"]["nll"]["mean"] == pytest.approx(float(torch.nn.functional.nll_loss(p.log(), truth)), abs=1e-4)
    pooled = found["pooled"]
    assert pooled["auc"]["mean"] == pytest.approx(float(tm.auroc(p, truth, **task)), abs=1e-4)
    assert pooled["kappa"]["mean"] == pytest.approx(float(tm.cohen_kappa(p, truth, **task)), abs=1e-4)
    assert pooled["ece"]["mean"] == pytest.approx(float(tm.calibration_error(p, truth, n_bins=15, **task)), abs=1e-4)
    assert "kappa_quadratic" not in pooled
    assert pooled["auc"]["groups"] == len({case.group for case in cases}) == 3
    assert found["by_class"]["auc"]["red"]["cases"] == int((truth == 2).sum())
    assert found["metrics"]["correct"]["mean"] > 0.6  # chance is 1/3
    table = list(csv.DictReader((path / "probabilities.csv").open()))
    assert [row["class"] for row in table[:3]] == ["blue", "green", "red"]
    assert np.allclose([float(row["probability"]) for row in table], p.flatten(), atol=1e-5)
    page = (path / "report.html").read_text()
    for words in (
        "Lowest probability of the truth",
        "the mean accuracy is",
        "Confusion",
        "Precision and recall",
        "no threshold was chosen",
    ):
        assert words in page
    assert "Dice" not in page
    assert "result.answer" in (path / "README.md").read_text()


def test_predictions_are_files_that_go_on(path, data, tmp_path, capsys):
    out, images = tmp_path / "out", tmp_path / "images"
    shutil.copytree(data / "images", images)
    shutil.move(images / "i00.png", tmp_path / "later.png")
    line = ["predict", str(path), str(images), "--out", str(out), "--device", "cpu"]
    assert main(line) == 0
    shutil.move(tmp_path / "later.png", images / "i00.png")
    capsys.readouterr()
    assert main(line) == 0
    assert "23 of 24 are done already" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert list(rows[0]) == ["id", "blue", "green", "red", "answer"]
    assert [row["id"] for row in rows] == [f"i{index:02d}" for index in range(24)]
    run = somite.load(path, device="cpu")
    answer = run.predict(images / "i00.png")
    assert answer.answer == [rows[0]["answer"]]
    assert [float(rows[0][name]) for name in answer.names] == pytest.approx(answer.probability.tolist(), abs=1e-5)
    of_array = run.predict(np.full((20, 16, 3), (200, 40, 40), np.uint8))
    assert of_array.names == ("blue", "green", "red")
    assert of_array.probability.sum() == pytest.approx(1, abs=1e-5)


def test_a_temperature_is_fitted_and_applied(path):
    assert main(["calibrate", str(path)]) == 0
    temperature = json.loads((path / "temperature.json").read_text())["temperature"]
    run = somite.load(path, device="cpu")
    case = run.recipe.data.cases("test")[0]
    before, after = run.answer(case).probability, somite.calibration.calibrated(run).answer(case).probability
    assert np.allclose(after, softmax(np.log(before.astype(float).clip(1e-6)) / temperature), atol=1e-4)

    def loss(t):
        answers = [(run.answer(one).probability.astype(float).clip(1e-6), one.labels.index(1.0)) for one in run.recipe.data.cases("val")]
        return -np.mean([np.log(softmax(np.log(p) / t)[y]) for p, y in answers])

    assert loss(temperature) <= min(loss(0.8 * temperature), loss(1.25 * temperature)) + 1e-6


def test_any_number_of_labels(tmp_path, capsys):
    root = coloured(tmp_path / "data", several=True)
    line = ["train", "classifier/small", f"--data.root={root}", *SMALL, "--out", str(tmp_path / "run")]
    assert main(line) == 2
    told = capsys.readouterr().err
    assert "labels where one was wanted" in told
    any_of = [
        "--method.codec",
        "somite.diffusion.classes.AnyOf",
        "--method.terms",
        "{labels: {class_path: somite.diffusion.terms.BinaryCrossEntropy}}",
    ]
    assert any(one in told for one in any_of)
    assert main([*line, *any_of]) == 0
    run = somite.load(tmp_path / "run", device="cpu")
    summary = run.evaluate()
    assert run.report().is_file()
    table = list(csv.DictReader((tmp_path / "run" / "probabilities.csv").open()))
    p, y = (torch.tensor([float(row[name]) for row in table]).reshape(-1, 3) for name in ("probability", "truth"))
    assert [row["label"] for row in table[:3]] == ["red", "green", "blue"]
    assert not torch.allclose(p.sum(1), torch.ones(len(p)))
    assert summary["metrics"]["nll"]["mean"] == pytest.approx(float(torch.nn.functional.binary_cross_entropy(p, y)), abs=1e-4)
    assert summary["metrics"]["brier"]["mean"] == pytest.approx(float(((p - y) ** 2).mean()), abs=1e-4)
    exact = tm.classification.multilabel_exact_match(p, y.long(), num_labels=3)
    assert summary["metrics"]["correct"]["mean"] == pytest.approx(float(exact))
    assert main(["calibrate", str(tmp_path / "run")]) == 0


def test_what_cannot_be_trained(tmp_path, capsys):
    root = coloured(tmp_path / "data")
    text = (root / "labels.csv").read_text()

    def refused(*options):
        assert main(["train", "classifier/small", f"--data.root={root}", *SMALL, "--out", str(tmp_path / "run"), *options]) == 2
        told = capsys.readouterr()
        assert len(told.err.splitlines()) == 1
        return told.err

    assert "3 classes (blue, green, red) but the recipe is for 3 and its codec for 4" in refused("--method.codec.classes=4")
    lines = [line.replace(",train,", ",test,") if line.endswith(",red") else line for line in text.splitlines()]
    (root / "labels.csv").write_text("\n".join(line.replace("p", f"q{i}", 1) if i else line for i, line in enumerate(lines)))
    assert "no training case of the class 'red'" in refused()
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "weights.safetensors").exists()


def test_one_image_under_two_labels_is_told(tmp_path, capsys):
    root = coloured(tmp_path / "data")
    shutil.copy(root / "images" / "i04.png", root / "images" / "i05.png")
    recipe = build(settled(parse(path_of("classifier/small"), [f"--data.root={root}", *SMALL]), tmp_path))
    recipe.task.check(recipe.data, recipe.method.codec, map(recipe.data.loaded, [*recipe.data.cases("train"), *recipe.data.cases("val")]))
    assert "warning: i04 and i05 are the same image with different labels" in capsys.readouterr().out


def record(labels, names=("a", "b", "c")):
    return Record(Case("x", (), None, "g", labels), "g", np.zeros((3, 4, 4), np.float32), None, None, None, None, names)


def test_members_are_fused_and_scored_by_hand():
    members = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], np.float32)
    one = Classified.fused(record((0.0, 0.0, 1.0)), members, Mean(), exclusive=True)
    row = Classification(3).score(one).rows[0]
    assert one.answer == ["b"]
    assert (row["truth"], row["answer"], row["correct"]) == ("c", "b", 0)
    assert row["nll"] == pytest.approx(-np.log(0.1), rel=1e-5)
    assert row["p_truth"] == pytest.approx(0.1, rel=1e-5)
    assert row["brier"] == pytest.approx((0.4**2 + 0.5**2 + 0.9**2) / 2, rel=1e-5)
    assert one.spread == pytest.approx([0.2, 0.2, 0.0], abs=1e-6)
    some = Classified.fused(record((1.0, 0.0, 1.0)), members, Mean(), exclusive=False)
    row = Classification(3).score(some).rows[0]
    assert some.answer == ["b"]
    assert (row["truth"], row["correct"]) == ("a; c", 0)
    assert row["nll"] == pytest.approx(-np.mean(np.log([0.4, 0.5, 0.1])), rel=1e-5)
    warm = Classified.fused(record((1.0, 0.0, 1.0)), members, Tempered(2.0), exclusive=False)
    assert warm.probability == pytest.approx(1 / (1 + np.exp(-np.log(np.array([0.4, 0.5, 0.1]) / [0.6, 0.5, 0.9]) / 2)), abs=1e-5)
    with pytest.raises(InputError, match="x has no labels"):
        Classification(3).score(Classified.fused(record(None), members, Mean(), exclusive=True))


def test_grades_have_a_quadratic_kappa():
    table = [
        {"case": f"c{i}", "group": f"g{i}", "class": str(k), "truth": int(k == i % 3), "probability": float(k == (i * i) % 3)}
        for i in range(9)
        for k in range(3)
    ]
    found = conclude(table, 15)["pooled"]
    d, y = torch.tensor([(i * i) % 3 for i in range(9)]), torch.tensor([i % 3 for i in range(9)])
    wanted = tm.cohen_kappa(d, y, task="multiclass", num_classes=3, weights="quadratic")
    assert found["kappa_quadratic"]["mean"] == pytest.approx(float(wanted))


class TestContract(TaskContract):
    def make(self):
        return Classification()

    def data(self, folder):
        return Data(str(write_phantoms(folder / "data", 6, (20, 24))))

    def method(self):
        torch.manual_seed(0)
        return FeedForward(ResNet(None, [4, 4, 4, 8], [1, 1, 1, 1], stem=1, dropout=0.5, sampled=True), {}, OneOf())


class TestContractOfLabelsOfAVolume(TestContract):
    """Slice by slice, and labels that do not exclude each other."""

    def data(self, folder):
        return Data(str(write_phantoms(folder / "data", 6, (20, 24, 8), channels=3)))

    def method(self):
        torch.manual_seed(0)
        return FeedForward(ResNet(None, [4, 4, 4, 8], [1, 1, 1, 1], stem=1, dropout=0.5, sampled=True), {}, AnyOf())
