"""report.html: an evaluation for people to read, in one file that needs nothing from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ..files import write_text
from ..pipeline import Run
from ..tasks.view import Found, Plot, Section
from ..wording import count, interval, number, size
from . import figures, words
from .cases import gallery
from .findings import History, evaluation, history, method, network, source, title, weights

HISTORY = ("recipe.yaml", "environment.json", "metrics.csv", "training.json", "weights.safetensors")


@dataclass(frozen=True)
class Picture:
    title: str
    uri: str
    alt: str
    text: str
    wide: bool


@dataclass(frozen=True)
class Chapter:
    """A section whose plots have become pictures."""

    id: str
    title: str
    plots: list[Picture]
    paragraphs: list[tuple[str, str]]


def write_report(run: Run, folder: Path) -> Path:
    """Write `folder`/report.html from the evaluation in `folder` and the training in the run's own folder.

    `run` samples as it did in the evaluation; nine cases are answered once more for the pictures. Raises InputError without an
    evaluation.
    """
    found, past = evaluation(run.path, folder), history(run.path)
    page = template("template.html.j2")
    path = folder / "report.html"
    write_text(path, page.render(context(run, folder, found, past), number=number, interval=interval, count=count, size=size))
    return path


def template(name: str) -> Template:
    """A page of this folder, in which everything is escaped and nothing may be missing."""
    return Environment(
        loader=PackageLoader("somite", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def context(run: Run, folder: Path, found: Found, past: History) -> dict[str, Any]:
    summary, task = found.summary, run.recipe.task
    view = task.view(found)
    return {
        "notice": words.NOTICE,
        "limits": words.LIMITS,
        "title": title(run, past.environment),
        "network": network(run),
        "method": method(run),
        "weights": weights(run),
        "source": source(run),
        "summary": summary,
        "view": view,
        "sentence": words.sentence(summary, view, len({row["case"] for row in found.rows})),
        "lines": words.lines(view),
        "gallery": gallery(run, view, found),
        "chapters": [chapter(section) for section in [*task.sections(found), *task.drawn(found, run), *trained(past, task.score_name)]],
        "environments": {"evaluation": summary["environment"], **({"training": past.environment} if past.environment else {})},
        "data": {f"{summary['split']} split": summary["data"], **trained_on(past)},
        "seeds": {"evaluation": summary["seed"], "training": run.recipe.training.seed},
        "sampling": told(summary),
        "recipe": (run.path / "recipe.yaml").read_text(encoding="utf-8"),
        "files": ["rows.csv", "metrics.json", *(f"{name}.csv" for name in found.tables)],
        "run_files": [name for name in HISTORY if (run.path / name).is_file()],
    }


def told(summary: dict[str, Any]) -> str:
    """The sampling in a line."""
    parts = [count(summary["members"], "member"), count(summary["steps"], "reverse step"), f"seed {summary['seed']}"]
    return ", ".join([*parts, *summary["overrides"]])


def trained_on(past: History) -> dict[str, Any]:
    return {"train and val splits": past.environment["data"]} if "data" in past.environment else {}


def trained(past: History, name: str) -> list[Section]:
    """How training went, where it was logged."""
    plots = []
    if logged(past, "train/loss"):
        plots.append(Plot("Training loss", figures.loss(past.metrics), "Training loss against steps", "Of single batches, as logged."))
    if logged(past, "val/score"):
        kept = past.best if past.best and past.best["step"] else None
        text = "Every case of the validation split, sampled."
        if kept:
            at = f"step {kept['step']:,} ({name} {number(kept['score'])})"
            text += f" The diamond marks {at}, whose weights were kept and evaluated."
        alt = f"Validation {name} against steps; a diamond marks the weights that were kept"
        plots.append(Plot(f"Validation {name}", figures.validation(past.metrics, past.best, name), alt, text))
    return [Section("training", "Training", plots)] if plots else []


def chapter(section: Section) -> Chapter:
    plots = [Picture(plot.title, figures.data_uri(plot.figure), plot.alt, plot.text, plot.wide) for plot in section.plots]
    return Chapter(section.id, section.title, plots, section.paragraphs)


def logged(past: History, name: str) -> bool:
    return any(row["metric"] == name for row in past.metrics)
