"""The report and the card of tiny runs: everything in one file, no number that the files do not hold."""

import base64
import csv
import json
import shutil

import pytest

import somite
from pages import Page
from runs import untrained
from somite import wording
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.evaluation import evaluate
from somite.recipe import parse, path_of
from somite.report import words
from somite.report.card import write_card
from somite.report.cases import chosen
from somite.report.findings import evaluation, network
from somite.report.html import write_report
from somite.trainer.run import train

TINY = [
    "--method.network.channels=12", "--method.network.hidden=8", "--method.network.updates=2", "--training.steps=2",
    "--training.validate=2", "--training.batch=2", "--data.crop=32", "--data.preprocess.size=32",
]  # fmt: skip
HOSTILE = '<img src=x onerror="alert(1)">'


def make(folder, recipe, *overrides, size=(32, 32), classes=1, n=10):
    data = write_phantoms(folder / "data", n, size, classes=classes, **({"channels": 1} if len(size) == 3 else {}))
    train(parse(path_of(recipe), [f"--data.root={data}", *TINY, *overrides]), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained and evaluated run of three members."""
    path = make(tmp_path_factory.mktemp("binary"), "medsegdiffnca/demo", "--task.members=3", "--task.steps=[1,2]")
    evaluate(somite.load(path), "test", path)
    return path


@pytest.fixture
def run(made, tmp_path):
    return somite.load(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    """Of the run as it was evaluated: for tests that change nothing of it."""
    run = somite.load(shutil.copytree(made, tmp_path_factory.mktemp("page") / "run"))
    return Page(write_report(run, run.path))


def rewrite(path, change):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def resummarise(path, change):
    summary = json.loads((path / "metrics.json").read_text())
    change(summary)
    (path / "metrics.json").write_text(json.dumps(summary))


def test_page_is_well_formed_and_asks_nothing_of_the_network(page):
    assert page.open == []
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert not any(name.startswith("on") for name in attrs)
        assert attrs.get("src", "data:").startswith("data:")
        assert attrs.get("href", "#").startswith("#")
        assert "url(" not in attrs.get("style", "")
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_figures_hold_no_links_either(page):
    for attrs in page.images():
        kind, body = attrs["src"].split(";base64,")
        if kind == "data:image/svg+xml":
            svg = base64.b64decode(body).decode()
            assert "@import" not in svg
            assert 'href="http' not in svg
            assert "url(http" not in svg


def test_every_image_has_an_alternative_text(page):
    assert len(page.images()) == 5 * 2 + 6  # cases and figures; two steps log no loss
    assert all(attrs["alt"] for attrs in page.images())


def test_the_sentence_says_whose_answer_it_is(run):
    found = evaluation(run.path, run.path)
    summary, view = found.summary, run.recipe.task.view(found)
    assert "reverse step, the mean" in words.sentence({**summary, "steps": 1}, view, 3)
    told = {**summary, "readout": "Auxiliary", "timesteps": [999, 500], "steps": 2, "folds": ["a", "b"]}
    expected = "2 reverse steps placed by the benefit of the image of each of 2 folds, by the auxiliary map alone, the"
    assert expected in words.sentence(told, view, 3)


def test_numbers_are_those_of_the_summary(run, page):
    summary = json.loads((run.path / "metrics.json").read_text())
    for line in words.lines(run.recipe.task.view(evaluation(run.path, run.path))):
        assert f"{line.name} {line.mean} {line.interval}" in page.text
    for name, found in summary["metrics"].items():
        assert wording.number(found["mean"]) in page.text, name
    assert summary["data"]["digest"] in page.text
    assert wording.number(summary["selective"]["aurc"]) in page.text
    assert summary["empty_rule"].removeprefix("Empty masks: i") in page.text


def test_what_a_reader_must_not_miss(run, page):
    assert page.text.count("Research use only. Not a medical device.") == 2
    assert "even a perfect model shows a gap" in page.text
    assert "closed on the right" in page.text
    assert "All numbers stand in rows.csv, metrics.json" in page.text
    assert "predicted now, it differs" not in page.text  # the pictures are of what was scored
    assert run.method.steps == 1


def test_same_run_same_page(run):
    assert write_report(run, run.path).read_bytes() == write_report(run, run.path).read_bytes()


def test_another_split_has_its_own_page(run):
    evaluate(run, "val", run.path / "val")
    page = Page(write_report(run, run.path / "val"))
    assert "of the val split" in page.text
    assert not (run.path / "report.html").exists()


def test_no_evaluation_is_the_users_to_mend(run):
    (run.path / "rows.csv").unlink()
    with pytest.raises(InputError, match=r"rows\.csv missing.*somite evaluate"):
        write_report(run, run.path)


def test_names_of_cases_are_text_and_never_markup(run, monkeypatch):
    ids = {row.id: f"{HOSTILE}{i}" for i, row in enumerate(run.recipe.data.cases("test"))}
    for name in ("rows.csv", "reliability.csv", "curves.csv"):
        rewrite(run.path / name, lambda row: row.update(case=ids[row["case"]]))
    cases = run.recipe.data.cases("test")
    hostile = [type(case)(ids[case.id], case.images, case.mask, case.group) for case in cases]
    monkeypatch.setattr(run.recipe.data, "cases", lambda split: hostile)
    path = write_report(run, run.path)
    page = Page(path)
    assert HOSTILE in page.text
    assert "<img src=x" not in path.read_text()
    assert all("onerror" not in attrs for _, attrs in page.tags)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_metrics_without_intervals(run, value):
    def flat(summary):
        for part in ("metrics", "by_size", "by_label", "pooled"):
            for found in summary[part].values():
                found.update(mean=value, low=None, high=None, groups=1)

    rewrite(run.path / "rows.csv", lambda row: row.update(dice=value, nqm=0.0, group="one"))
    rewrite(run.path / "curves.csv", lambda row: row.update(dice=value, group="one"))
    resummarise(run.path, flat)
    page = Page(write_report(run, run.path))
    assert f"the mean Dice is {value:.3f} (no interval, as there is one group only)" in page.text
    assert "nan" not in page.text.lower()


def test_sections_without_data_are_left_out(run):
    for name in ("reliability.csv", "curves.csv", "votes.csv", "metrics.csv", "training.json", "environment.json"):
        (run.path / name).unlink()
    resummarise(run.path, lambda summary: (summary.pop("sampler_floor"), summary.update(members=1)))
    page = Page(write_report(run, run.path))
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "h2"]
    assert ids == ["table", "cases", "where", "made", "limits"]
    assert "Does it know" not in page.text
    assert "NQM" not in page.text


def test_a_single_member_has_no_spread_to_show(run):
    run = run.at(members=1)
    evaluate(run, "test", run.path / "one")
    page = Page(write_report(run, run.path / "one"))
    assert "with 1 member and" in page.text
    assert not any(word in page.text for word in ("spread 0", "NQM", "have a floor", "Does it know"))
    assert not any("spread" in attrs["alt"] for attrs in page.images())


def test_cases_that_are_gone_cost_only_their_pictures(run):
    rewrite(run.path / "rows.csv", lambda row: row.update(case="gone-" + row["case"]))
    assert "cases" not in [attrs.get("id") for _, attrs in Page(write_report(run, run.path)).tags]


def test_several_labels_have_a_table_and_colours(tmp_path):
    codec = '--method.codec={"class_path":"somite.diffusion.codec.OneHot","init_args":{"classes":3}}'
    labels = ["--data.labels=[0,1,2]", "--method.network.mask_channels=3", codec]
    path = make(tmp_path, "medsegdiffnca/demo", *labels, "--task.members=2", classes=2)
    run = somite.load(path)
    evaluate(run, "test", path)
    page = Page(write_report(run, path))
    assert "Dice by label" in page.text
    assert "and 2 labels" in page.text
    assert "one colour a label" in page.text
    assert "predicted now, it differs" not in page.text


def test_volumes_show_three_planes_in_rows(tmp_path):
    path = make(tmp_path, "medsegdiffnca/demo", "--data.preprocess.channels=1", "--method.network.image_channels=1", "--task.members=2",
                "--task.steps=[1]", size=(24, 20, 9), n=5)  # fmt: skip
    run = somite.load(path)
    evaluate(run, "test", path)
    page = Page(write_report(run, path))
    assert "of 9" in page.text
    assert "NSD at 2 mm" in page.text
    assert "soft tissue" not in page.text  # nothing of it looks like Hounsfield units
    rows = [attrs for tag, attrs in page.tags if tag == "div" and attrs.get("class") == "panels"]
    assert rows
    assert all("repeat(5," in attrs["style"] for attrs in rows)
    named = [attrs["alt"].partition(":")[0] for attrs in page.images() if "of case" in attrs["alt"]]
    assert named == ["axial"] * 5 + ["coronal"] * 5 + ["sagittal"] * 5


def test_the_network_is_named_and_not_what_is_around_it(tmp_path):
    given = ["--method.network.network.channels=32", "--method.network.network.mults=[1]"]
    assert network(somite.load(untrained("ensemdiff/volumes", tmp_path / "run", *given), device="cpu")) == "EnsemDiff"


def test_card_says_what_how_and_how_well(run):
    text = write_card(run).read_text()
    summary = json.loads((run.path / "metrics.json").read_text())
    assert wording.number(summary["metrics"]["dice"]["mean"]) in text
    assert "somite predict run IMAGE" in text
    assert "Research use only" in text
    assert "Mittal et al. 2025" in text
    assert json.loads((run.path / "environment.json").read_text())["data"]["digest"] in text
    assert "best validation Dice" in text


def test_card_of_weights_that_were_imported(run):
    for path in run.path.iterdir():
        if path.name not in ("recipe.yaml", "weights.safetensors"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = write_card(run).read_text()
    assert "Not evaluated yet" in text
    assert "the weights come from elsewhere" in text


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (8, [2, 2, 2]), (24, [3, 3, 3])])
def test_no_case_is_shown_twice(n, sizes):
    groups = list(chosen([str(i) for i in range(n)], "Dice").values())
    assert [len(group) for group in groups] == sizes
    assert len({id for group in groups for id in group}) == sum(sizes)


def test_numbers_for_people():
    assert [wording.number(x) for x in (None, 0.0, 1e-5, 0.8364, 12.345, 345.6)] == ["-", "0.000", "1.0e-05", "0.836", "12.3", "346"]
    assert wording.interval({"mean": 12.1, "low": 5.326, "high": 22.0}) == "5.3 to 22.0"
    assert [wording.count(n, "case") for n in (1, 1200)] == ["1 case", "1,200 cases"]
