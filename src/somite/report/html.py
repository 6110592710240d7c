"""report.html: an evaluation for people to read, in one file that needs nothing from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..files import write_text
from ..pipeline import Run
from . import figures, words
from .cases import gallery
from .findings import Evaluation, History, evaluation, history, method, network, source, title, weights

FILES = ("rows.csv", "metrics.json", "reliability.csv", "curves.csv", "votes.csv")
HISTORY = ("recipe.yaml", "environment.json", "metrics.csv", "training.json", "weights.safetensors")


@dataclass(frozen=True)
class Picture:
    uri: str
    alt: str


def write_report(run: Run, folder: Path) -> Path:
    """Write `folder`/report.html from the evaluation in `folder` and the training in the run's own folder.

    Nine cases are predicted once more for the pictures, as the evaluation did. Raises InputError without an evaluation.
    """
    found, past = evaluation(run.path, folder), history(run.path)
    page = Environment(
        loader=PackageLoader("somite", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("template.html.j2")
    path = folder / "report.html"
    write_text(path, page.render(context(run, folder, found, past), number=words.number, interval=words.interval, count=words.count))
    return path


def context(run: Run, folder: Path, found: Evaluation, past: History) -> dict[str, Any]:
    summary = found.summary
    lines = words.lines(summary)
    return {
        "notice": words.NOTICE,
        "limits": words.LIMITS,
        "title": title(run, past.environment),
        "network": network(run),
        "method": method(run),
        "weights": weights(run),
        "source": source(run),
        "summary": summary,
        "sentence": words.sentence(summary, len({row["case"] for row in found.rows})),
        "lines": lines,
        "tiles": [line for line in lines if line.name.startswith(("Dice", "NSD", "HD95", "ECE, pooled"))],
        "empty_rule": words.empty_rule(summary["empty_rule"]),
        "bin_rule": words.bin_rule(summary["bins"]),
        "boundary": summary["boundary"],
        "gallery": gallery(run, summary, found.rows),
        **pictures(found, past),
        "kept": past.best if past.best and past.best["step"] else None,
        "environments": {"evaluation": summary["environment"], **({"training": past.environment} if past.environment else {})},
        "data": {f"{summary['split']} split": summary["data"], **trained_on(past)},
        "seeds": {"evaluation": summary["seed"], "training": run.recipe.training.seed},
        "size": words.size,
        "recipe": (run.path / "recipe.yaml").read_text(encoding="utf-8"),
        "files": [name for name in FILES if (folder / name).is_file()],
        "run_files": [name for name in HISTORY if (run.path / name).is_file()],
    }


def trained_on(past: History) -> dict[str, Any]:
    return {"train and val splits": past.environment["data"]} if "data" in past.environment else {}


ALT = {
    "reliability": "Observed share of foreground against predicted probability in three regions; below, the pixels in each bin",
    "by_size": "Dice of each case by tercile of size, with means and 95 % intervals",
    "members": "Mean Dice against the number of members",
    "steps": "Mean Dice against the number of reverse steps",
    "selective": "Mean of 1 - Dice of the cases kept, against the share of cases kept",
    "loss": "Training loss against steps",
    "validation": "Validation Dice against steps; a diamond marks the weights that were kept",
}


def pictures(found: Evaluation, past: History) -> dict[str, Picture | None]:
    """The figures for which there are data; None for the others, whose sections are left out."""
    rows, several = found.rows, found.summary["members"] > 1
    drawn = {
        "reliability": figures.reliability(found.bins) if found.bins else None,
        "by_size": figures.by_size(rows, found.summary),
        "members": figures.curve(found.curves, "members") if varies(found, "members") else None,
        "steps": figures.curve(found.curves, "steps") if varies(found, "steps") else None,
        "selective": figures.selective(rows) if several and len(rows) > 1 else None,
        "loss": figures.loss(past.metrics) if logged(past, "train/loss") else None,
        "validation": figures.validation(past.metrics, past.best) if logged(past, "val/dice") else None,
    }
    return {name: Picture(figures.data_uri(figure), ALT[name]) if figure else None for name, figure in drawn.items()}


def varies(found: Evaluation, axis: str) -> bool:
    return len({row["at"] for row in found.curves if row["axis"] == axis}) > 1


def logged(past: History, name: str) -> bool:
    return any(row["metric"] == name for row in past.metrics)
