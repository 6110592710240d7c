"""One page of several runs: its numbers are those of `compare`, SciPy and the files; nothing that does not compare is put side by side."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy.stats import wilcoxon

import somite
from pages import Page
from runs import tiny
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.evaluation import compare, evaluate, read_rows
from somite.metrics.intervals import holm
from somite.report.several import verdict, write_several


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs evaluated on the same phantoms: two trainings, and the second with a better Dice written into its rows."""
    folder = tmp_path_factory.mktemp("several")
    root = write_phantoms(folder / "data", 24, (32, 32))
    paths = []
    for name, seed in (("one", 0), ("two", 1)):
        path = tiny(root, folder / name, "--training.steps=3", "--task.members=2", "--task.steps=[1]", f"--training.seed={seed}")
        evaluate(somite.load(path, device="cpu"), "test", path)
        paths.append(path)
    third = shutil.copytree(paths[1], folder / "three")
    rewrite(third, lambda row: row.update(dice=str(0.5 + float(row["dice"]) / 2)))
    return [*paths, third]


def rewrite(path, change):
    rows = read_rows(path / "rows.csv")
    for row in rows:
        change(row)
    with (path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "side.html"
    write_several(runs, out, cases=2)
    return Page(out), read_rows(out.with_suffix(".csv"))


def test_page_asks_nothing_of_the_network(page):
    found, _ = page
    assert found.open == []
    for tag, attrs in found.tags:
        assert tag not in ("script", "link", "iframe")
        assert attrs.get("src", "data:").startswith("data:")
        assert attrs.get("href", "#").startswith("#")
    assert all(attrs["alt"] for attrs in found.images())


def test_two_runs_are_compared_as_compare_does(runs, tmp_path):
    write_several(runs[:2], tmp_path / "two.html", cases=0)
    rows = read_rows(tmp_path / "two.csv")
    told = compare(runs[1], runs[0])
    assert [row["metric"] for row in rows] == [row["metric"] for row in told]
    for row, expected in zip(rows, told, strict=True):
        assert float(row["difference"]) == pytest.approx(expected["mean"], rel=1e-5)
        assert float(row["p_holm"]) == pytest.approx(expected["p_holm"], rel=1e-5)
        assert (float(row["low"]), float(row["high"])) == pytest.approx((expected["low"], expected["high"]), rel=1e-5)


def test_differences_are_scipys_and_adjusted_over_the_page(runs, page):
    rows = page[1]
    assert {row["run"] for row in rows} == {str(path) for path in runs[1:]}
    first, third = ({row["case"]: row for row in read_rows(path / "rows.csv")} for path in (runs[0], runs[2]))
    apart = np.array([float(third[case]["dice"]) - float(first[case]["dice"]) for case in first])
    row = next(row for row in rows if row["run"] == str(runs[2]) and row["metric"] == "dice")
    assert float(row["difference"]) == pytest.approx(apart.mean(), rel=1e-4)
    groups = np.array([first[case]["group"] for case in first])
    means = [apart[groups == group].mean() for group in np.unique(groups)]
    assert float(row["p"]) == pytest.approx(wilcoxon(means).pvalue, rel=1e-4)
    assert [float(row["p_holm"]) for row in rows] == pytest.approx(holm([float(row["p"]) for row in rows]), rel=1e-4)


def test_cases_that_differ_most_are_shown_first(runs, page):
    scores = [{row["case"]: float(row["dice"]) for row in read_rows(path / "rows.csv")} for path in runs]
    spread = {case: max(s[case] for s in scores) - min(s[case] for s in scores) for case in scores[0]}
    first, second = sorted(spread, key=lambda case: (-spread[case], case))[:2]
    text = page[0].text
    assert 0 < text.index(first, text.index("Where they differ most")) < text.index(second, text.index("Where they differ most"))
    assert sum(attrs["alt"].endswith(f"of case {first} by {path.name}") for attrs in page[0].images() for path in runs) == 5 * 3
    # The third run's scores were changed by hand after its answers were made.
    assert "differs from what was scored" in text


def test_metrics_and_calibration_stand_side_by_side(runs, page):
    text = page[0].text
    for path in runs:
        assert path.name in text
    assert "Does 0.8 mean 80 %?" in text
    assert "Observed share of foreground against predicted probability" in " ".join(attrs["alt"] for attrs in page[0].images())
    mean = json.loads((runs[0] / "metrics.json").read_text())["metrics"]["dice"]["mean"]
    assert f"The mean Dice of one, to which the others are compared, is {mean:.3f}" in text


@pytest.mark.parametrize(
    ("low", "high", "p", "better", "expected"),
    [
        (0.1, 0.2, 0.01, "higher is better", "better"),
        (0.1, 0.2, 0.01, "lower is better", "worse"),
        (-0.2, -0.1, 0.01, "lower is better", "better"),
        (0.1, 0.2, 0.06, "higher is better", "undecided"),
        (-0.1, 0.2, 0.01, "higher is better", "undecided"),
        (None, None, 0.01, "higher is better", "undecided"),
        (0.1, 0.2, 0.01, "", "higher"),
        (-0.2, -0.1, 0.01, "lower is surer", "lower"),
    ],
)
def test_what_is_decided(low, high, p, better, expected):
    mean = 0.0 if low is None else (low + high) / 2
    assert verdict({"low": low, "high": high, "difference": mean, "p_holm": p}, better) == expected


def test_what_does_not_compare_is_refused_and_nothing_written(runs, tmp_path, capsys):
    other = shutil.copytree(runs[1], tmp_path / "other")
    summary = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps({**summary, "data": {**summary["data"], "digest": "another"}}))
    out = tmp_path / "page.html"
    for given, words in (
        ([runs[0], other], "evaluated on other cases"),
        ([runs[0]], "two runs or more"),
        ([runs[0], runs[0]], "named twice"),
        ([runs[0], tmp_path / "nowhere"], "holds no evaluation"),
    ):
        assert main(["report", *map(str, given), "--out", str(out), "--device", "cpu"]) == 2
        assert words in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(InputError, match="a report is a page"):
        write_several(runs, tmp_path / "page.txt")
