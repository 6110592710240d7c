"""The demo's parts on a tiny recipe; the whole of it, minutes long, is marked slow."""

import json

import pytest

from runs import TINY
from somite import demo
from somite.cli import main


@pytest.fixture
def short(monkeypatch):
    """The same demo with a recipe of seconds and three test images."""
    parse, cases = demo.parse, demo.load

    def few(path):
        run = cases(path)
        kept = run.recipe.data.cases("test")[:3]
        run.recipe.data._cases["test"] = kept
        return run

    small = [*TINY, "--data.preprocess.size=32", "--training.steps=2", "--task.members=2", "--task.steps=null"]
    monkeypatch.setattr(demo, "parse", lambda path, overrides: parse(path, [*small, *overrides]))
    monkeypatch.setattr(demo, "load", few)


def test_it_trains_predicts_evaluates_and_reports(short, tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert str(out / "report.html") in told
    assert (out / "report.html").stat().st_size > 10_000
    assert len(list((out / "predictions").glob("*_mask.png"))) == 3
    assert json.loads((out / "metrics.json").read_text())["metrics"]["dice"]["cases"] == 3
    assert "seed: 3" in (out / "recipe.yaml").read_text()
    before = (out / "report.html").stat().st_mtime_ns
    assert main(["demo", "--out", str(out), "--seed", "3"]) == 0
    assert "all is done already" in capsys.readouterr().out
    assert (out / "report.html").stat().st_mtime_ns == before
    (out / "report.html").unlink()  # stopped before the report: the training is not made again
    weights = (out / "weights.safetensors").stat().st_mtime_ns
    assert main(["demo", "--out", str(out), "--seed", "3"]) == 0
    assert (out / "report.html").is_file()
    assert (out / "weights.safetensors").stat().st_mtime_ns == weights
    assert main(["demo", "--out", str(out), "--seed", "4"]) == 2
    assert "training.seed is 3 there and 4 here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_reaches_its_dice(tmp_path):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--seed", "0"]) == 0
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())["metrics"]["dice"]["mean"] >= 0.86
