"""`somite calibrate --control` and `--quality`, through the command line, on a run of phantoms."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import somite
from runs import classifier, tiny
from somite import calibration, control, quality
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.files import read_json, write_json
from somite.metrics.risk import rates
from somite.predict.control import Controlled


def split(root, train, val):
    """Two cases a patient: the first so many train, the next validate, the rest test."""
    names = sorted(path.stem for path in (root / "images").iterdir())
    write_json(root / "splits.json", {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]})
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = split(write_phantoms(tmp_path_factory.mktemp("data"), 50, (32, 32)), 6, 40)
    steps = ("--training.steps=30", "--training.rate=0.02", "--task.members=2", "--task.steps=[1]")
    return tiny(root, tmp_path_factory.mktemp("run") / "run", *steps)


@pytest.fixture
def path(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def ran(*line):
    assert main([str(part) for part in line]) == 0


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_threshold_is_chosen_kept_and_taken(path, tmp_path, refused):
    image = somite.load(path, device="cpu").data.cases("test")[0].images[0]
    ran("calibrate", path, "--control", "fnr=0.2")
    found = read_json(control.path_of(path))
    assert found["groups"] == 20
    assert found["on_validation"] <= 0.2 * 21 / 20 - 1 / 20 + 1e-9  # (20 R + 1) / 21 <= 0.2
    ran("predict", path, image, "--out", tmp_path / "out", "--save", "mask,probability")
    told = read_json(tmp_path / "out/prediction.json")["overrides"]
    assert any("Controlled" in text and str(found["threshold"]) in text for text in told)
    run = somite.load(path, device="cpu")
    assert run.controlled().recipe.task.fusion.threshold == found["threshold"]
    mask = np.asarray(Image.open(tmp_path / f"out/{image.stem}_mask.png")) > 0
    np.testing.assert_array_equal(mask, run.predict(image).probability[0] >= np.float32(found["threshold"]))
    assert mask.any() and not mask.all()
    ran("predict", path, image, "--out", tmp_path / "plain", "--save", "mask", "--plain")
    plain = np.asarray(Image.open(tmp_path / f"plain/{image.stem}_mask.png")) > 0
    np.testing.assert_array_equal(plain, run.predict(image).mask > 0)
    refused(["predict", path, image, "--out", tmp_path / "more", "--members", "3"], "control.json", "another members", "--plain")
    with pytest.raises(InputError, match="not for an ensemble of folds; add --plain"):
        control.applied(replace(run, folds=(run,)))
    ran("calibrate", path, "--control", "none")
    assert not control.path_of(path).exists()


def test_the_threshold_is_the_highest_that_keeps_the_risk(path):
    """Against the masks themselves: at the threshold the patients' mean holds, at the next one it would not."""
    run = somite.load(path, device="cpu")
    threshold = control.control(run, control.wanted("fnr=0.2"))["threshold"]
    answers = [run.answer(case) for case in run.data.cases("val")]

    def bound(at):
        losses = [rates(one.probability[0] >= np.float32(at), one.record.truth > 0)["fnr"] for one in answers]
        return (20 * np.mean(losses) + 1) / 21  # two cases in each of 20 patients, all with foreground

    assert bound(threshold) <= 0.2 < bound(threshold * 1.03 + 1e-6)


def test_an_evaluation_shows_what_came_of_it(path, refused):
    ran("calibrate", path, "--control", "fpr=0.1", "--quality")
    ran("evaluate", path)
    summary = read_json(path / "metrics.json")
    run = somite.load(path, device="cpu").controlled()
    cases = run.data.cases("test")
    at, half = run.answer(cases[0]), somite.load(path, device="cpu").answer(cases[0])
    rows = [row for row in table(path / "risks.csv") if row["case"] == cases[0].id]
    for row, answer in zip(rows, (at, half), strict=True):
        for name, value in rates(answer.mask > 0, answer.record.truth > 0).items():
            assert float(row[name]) == pytest.approx(value, abs=1e-5)
    groups = {}
    for row in table(path / "risks.csv")[::2]:
        groups.setdefault(row["group"], []).append(float(row["fpr"]))
    assert summary["control"]["found"]["mean"] == pytest.approx(np.mean([np.mean(one) for one in groups.values()]), abs=1e-5)
    assert summary["control"]["found"]["groups"] == len(groups)
    page = (path / "report.html").read_text()
    for words in ("Risk control: FPR at most 0.1", "in expectation, over patients", "Look at these first", "Predicted and true Dice"):
        assert words in page
    assert "Risk control." in (path / "README.md").read_text()
    refused(["evaluate", path, "--split", "val"], "calibrated on", "--plain")


def test_each_case_is_foretold_and_the_worst_comes_first(path, tmp_path, capsys):
    ran("calibrate", path, "--quality")
    found = read_json(quality.path_of(path))
    assert found["sign"] == "members"
    assert found["groups"] == {"fitted": 10, "interval": 10}
    images = [case.images[0] for case in somite.load(path, device="cpu").data.cases("test")]
    ran("predict", path, *images[:5], "--out", tmp_path / "out")
    told = capsys.readouterr().out
    rows = table(tmp_path / "out/quality.csv")
    assert [float(row["predicted"]) for row in rows] == sorted(float(row["predicted"]) for row in rows)
    assert f"look at these first, by their predicted score: {rows[0]['id']}" in told
    run = somite.load(path, device="cpu")
    for row in rows:
        answer = run.predict(next(image for image in images if image.stem == row["id"]))
        sign = 1 - somite.metrics.uncertainty.disagreement(answer.drawn[:, 0] >= 0.5)
        want = run.quality(answer)
        assert float(row["sign"]) == pytest.approx(sign, abs=1e-6)
        assert float(row["predicted"]) == pytest.approx(np.interp(sign, found["signs"], found["scores"]), abs=1e-6)
        assert 0 <= want["low"] <= want["predicted"] <= want["high"] <= 1
        assert want["high"] - want["low"] <= 2 * found["half_width"] + 1e-9
        assert json.loads((tmp_path / f"out/{row['id']}_quality.json").read_text()) == pytest.approx(
            {"id": row["id"], **{name: round(value, 6) for name, value in want.items()}}
        )
    (tmp_path / f"out/{rows[0]['id']}_quality.json").unlink()
    ran("predict", path, *images, "--out", tmp_path / "out", "--workers", "2")  # goes on, in processes
    assert len(table(tmp_path / "out/quality.csv")) == len(images)
    assert next(row for row in table(tmp_path / "out/quality.csv") if row["id"] == rows[0]["id"]) == rows[0]


def test_a_quality_is_of_the_masks_that_it_was_fitted_to(path, tmp_path, refused):
    ran("calibrate", path, "--quality")
    ran("calibrate", path, "--control", "fnr=0.3")
    image = somite.load(path, device="cpu").data.cases("test")[0].images[0]
    refused(["predict", path, image, "--out", tmp_path / "out"], "quality.json was fitted with another overrides", "--plain")
    assert not (tmp_path / "out").exists()


def test_convergence_is_asked_of_cells_that_go_on(path, refused):
    run = somite.load(path, device="cpu").at(members=1)
    assert quality.usual(run) == "convergence"
    have, longer = quality.updates(run), quality.updates(quality.continued(run))
    assert longer == [*have[:-1], have[-1] + 1]
    case = run.data.cases("test")[0]
    one, other = run.answer(case), run.at(updates=longer).answer(case)
    want = 2 * (one.mask & other.mask).sum() / (one.mask.sum() + other.mask.sum())
    assert quality.Signed(run, "convergence")(one) == pytest.approx(want)
    refused(["calibrate", path, "--quality", "--members", "1", "--sign", "members"], "one member agrees with itself")
    found = quality.calibrate(run)
    assert found["sign"] == "convergence"
    assert somite.load(path, device="cpu").at(members=1).quality(one)["sign"] == pytest.approx(want)


def test_scores_rise_with_their_signs():
    points, values = quality.risen(np.array([0.2, 0.5, 0.5, 0.9, 0.7]), np.array([0.4, 0.3, 0.5, 0.6, 0.8]))
    assert points.tolist() == [0.2, 0.5, 0.7, 0.9]
    assert values.tolist() == pytest.approx([0.4, 0.4, 0.7, 0.7])  # by hand: equal signs share their mean, and 0.8 and 0.6 are pooled


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--control", "fnr=0.01"), "has 20 patients (groups) for validation, and fnr=0.01 takes at least 99"),
        (("--control", "fdr=0.1"), "fdr=0.1 takes at least 22"),
        (("--control", "dice=0.1"), "--control dice=0.1: name a risk"),
        (("--control", "fnr=ten"), "--control fnr=ten: name a risk"),
        (("--control", "fnr=1.5"), "name a risk"),
        (("--control", "fdr=0.5", "--delta", "0"), "--delta 0.0"),
        (("--quality", "--level", "0.97"), "takes 66 patients (groups) for validation"),
        (("--quality", "--level", "1"), "--level 1.0"),
        (("--calibrated",), "leave it out to fit one"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_refused(trained, tmp_path, refused, line, words):
    if words.startswith("leave"):
        write_json(calibration.path_of(shutil.copytree(trained, tmp_path / "run")), {"temperature": 1.5})
        trained = tmp_path / "run"
    refused(["calibrate", trained, *line], words)
    assert not control.path_of(trained).exists() and not quality.path_of(trained).exists()


@pytest.mark.parametrize("other", ["test", "train"])
def test_no_case_may_be_known_before(path, tmp_path, refused, other):
    """Under another name, with another mask."""
    run = somite.load(path, device="cpu")
    root = shutil.copytree(run.data.path, tmp_path / "data")
    twin, case = run.data.cases(other)[0], run.data.cases("val")[3]
    shutil.copy(root / f"images/{case.id}.png", root / f"images/{twin.id}.png")
    recipe = path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(run.data.path), str(root)))
    refused(["calibrate", path, "--control", "fnr=0.2"], f"{twin.id} of the {other} cases is the image {case.id}")
    refused(["calibrate", path, "--quality"], f"{twin.id} of the {other} cases is the image {case.id}")


def test_runs_without_a_mask_or_with_several_classes(tmp_path, refused):
    root = split(write_phantoms(tmp_path / "data", 30, (32, 32), classes=2), 6, 18)
    classes = ("--data.labels=[0,1,2]", "--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3")
    path = tiny(root, tmp_path / "run", *classes, "--method.network.mask_channels=3", "--training.steps=1", "--task.members=1")
    refused(["calibrate", path, "--control", "fnr=0.2"], "no mask of one class", "--data.foreground")
    with pytest.raises(InputError, match="takes 18 patients"):
        quality.calibrate(somite.load(path, device="cpu"))
    found = quality.calibrate(somite.load(path, device="cpu"), level=0.75)  # of several classes the mean Dice
    assert found["groups"] == {"fitted": 4, "interval": 5}
    pictures = classifier(tmp_path / "labels", f"--data.root={root}", "--data.classes=[large,small]")
    refused(["calibrate", pictures, "--control", "fnr=0.2"], "no mask of one class")
    refused(["calibrate", pictures, "--quality", "--level", "0.75"], "answers with no mask")


def test_masks_that_mark_nothing_keep_any_risk_and_are_refused(path):
    """A run that is surest of the ground."""
    run = somite.load(path, device="cpu")
    task = run.recipe.task
    wrong = lambda answer: replace(answer, probability=0.4 + 0.2 * (answer.record.truth[None] == 0).astype(np.float32))  # noqa: E731
    run.recipe.task.risks = lambda answer: type(task).risks(task, wrong(answer))
    with pytest.raises(InputError, match="no mask that marks anything keeps the FDR"):
        control.control(run, control.wanted("fdr=0.1", 0.2))


def test_an_empty_truth_says_nothing_of_what_is_missed(path, tmp_path):
    run = somite.load(path, device="cpu")
    root = shutil.copytree(run.data.path, tmp_path / "data")
    for case in run.data.cases("val")[:2]:  # of one patient
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(root / f"masks/{case.id}.png")
    recipe = path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(run.data.path), str(root)))
    found = control.control(somite.load(path, device="cpu"), control.wanted("fnr=0.3"))
    assert (found["groups"], found["groups_left_out"]) == (19, 1)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"risk": "fnr"}', '{"risk": "fnr", "threshold": 2.0, "target": 0.1, "delta": 0.1, "cases": {}}']
)
def test_files_that_hold_nothing(path, content):
    run = somite.load(path, device="cpu")
    control.path_of(path).write_text(content)
    with pytest.raises(InputError, match=r"control\.json holds no threshold; run `somite calibrate"):
        run.controlled()
    quality.path_of(path).write_text(content)
    with pytest.raises(InputError, match=r"quality\.json holds no quality; run `somite calibrate"):
        quality.judge(run)


def test_without_a_file_a_run_is_as_it_was(path):
    run = somite.load(path, device="cpu")
    assert run.controlled() is run
    assert quality.judge(run) is None
    assert not isinstance(run.recipe.task.fusion, Controlled)
