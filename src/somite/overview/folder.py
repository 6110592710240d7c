"""One run folder as its files tell of it. What is broken is named, and stops nothing."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json

# The score by which runs of one task are ranked: that which their reports begin with. Larger is better for all of them.
HEADLINES = ("dice", "correct", "r2", "psnr", "brightness")
DEEP = 3  # levels below runs/: a recipe's name has two parts, a study's jobs one more
TAIL = 4096  # bytes of a log that hold its last lines

# What `somite calibrate` leaves, and what it is.
CALIBRATIONS = {"temperature.json": "temperature", "control.json": "threshold", "quality.json": "quality"}

# How far a run has come.
BROKEN, BEGUN, HALFWAY, IMPORTED, TRAINED, EVALUATED = "broken", "begun", "half way", "imported", "trained", "evaluated"


@dataclass(frozen=True)
class Score:
    """An evaluation's headline: the mean over cases, and its 95 % interval where there is one. digest: of the evaluated cases' files."""

    metric: str
    mean: float
    low: float | None
    high: float | None
    cases: int
    split: str
    root: str
    digest: str
    date: str


@dataclass(frozen=True)
class RunFolder:
    """state: one of the words above; fault: why a run is broken, in a sentence. recipe, data, task, date: empty where nothing says so. calibrated:
    what was calibrated, of `CALIBRATIONS`. foreign: whether opening it takes --trust.
    """

    path: Path
    state: str
    fault: str = ""
    recipe: str = ""
    task: str = ""
    data: str = ""
    done: int | None = None
    planned: int | None = None
    date: str = ""
    calibrated: tuple[str, ...] = ()
    foreign: bool = False
    score: Score | None = None


def is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("recipe.yaml", "weights.safetensors"))


def read(path: Path) -> RunFolder:
    """Never raises for what the folder holds: that is its fault."""
    try:
        return _read(path)
    except InputError as error:
        return RunFolder(path, BROKEN, " ".join(str(error).split()))


def _read(path: Path) -> RunFolder:
    if not (path / "recipe.yaml").is_file():
        raise InputError(f"{path} holds weights but no recipe.yaml; restore it from a copy")
    from ..trust import foreign  # as YAML, a folder without runs is answered without it

    recipe, made = _recipe(path / "recipe.yaml"), _mapping(path / "environment.json")
    found = RunFolder(
        path,
        BEGUN,
        recipe=_text(made.get("recipe")),
        task=_text(_at(recipe, "task", "class_path")).rpartition(".")[2],
        data=_text(_at(recipe, "data", "root")),
        planned=_whole(_at(recipe, "training", "steps")),
        date=_text(made.get("date")),
        calibrated=tuple(name for file, name in CALIBRATIONS.items() if (path / file).is_file()),
        foreign=foreign(path / "recipe.yaml", recipe) is not None,
    )
    trained, weights = _mapping(path / "training.json"), (path / "weights.safetensors").is_file()
    if trained and not weights:
        raise InputError(f"{path} was trained, but weights.safetensors is missing; restore it from a copy")
    if not trained:
        if weights and not made:
            return _scored(replace(found, state=IMPORTED, planned=None))
        return _scored(replace(found, state=HALFWAY if weights or _last(path) else BEGUN, done=_last(path)))
    return _scored(replace(found, state=TRAINED, done=_whole(trained.get("steps"))))


def _scored(found: RunFolder) -> RunFolder:
    """With the evaluation of the run folder itself, else the first of its splits that was evaluated. Half a training stays that."""
    told = next((file for file in (found.path / "metrics.json", *sorted(found.path.glob("*/metrics.json"))) if file.is_file()), None)
    if told is None:
        return found
    summary = _mapping(told)
    metrics = summary.get("metrics")
    if not isinstance(metrics, dict):
        raise InputError(f"{told} names no metrics; run `somite evaluate {found.path}` again")
    # What is measured of whole sets (generated images) has no mean over cases, so nothing to rank by.
    name = next((name for name in (*HEADLINES, *metrics) if name in metrics), None)
    state = found.state if found.state in (BEGUN, HALFWAY) else EVALUATED
    return replace(found, state=state, score=None if name is None else _score(told, summary, str(name)))


def _score(told: Path, summary: dict[str, Any], name: str) -> Score:
    one = summary["metrics"][name]
    mean, low, high = (_number(one.get(key)) for key in ("mean", "low", "high")) if isinstance(one, dict) else (None, None, None)
    if mean is None:
        raise InputError(f"{told} has no number for {name}; evaluate the run again")
    return Score(
        name,
        mean,
        low,
        high,
        _whole(one.get("cases")) or 0,
        _text(summary.get("split")),
        _text(summary.get("root")),
        _text(_at(summary, "data", "digest")),
        _text(_at(summary, "environment", "date")),
    )


def _last(path: Path) -> int | None:
    """Optimiser steps that the log has seen; a stop may cost some of them. None: nothing was logged."""
    log = path / "metrics.csv"
    if not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    steps = [int(row[0]) for row in csv.reader(lines) if row and row[0].isdecimal()]
    return steps[-1] + 1 if steps else None


def _recipe(path: Path) -> dict[str, Any]:
    from ..trust import values  # a folder without runs is answered without YAML

    found = values(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} is no recipe; restore it from a copy")
    return found


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is no file."""
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} is none of somite's files; remove it")
    return found


def _at(tree: Any, *keys: str) -> Any:  # noqa: ANN401 - JSON or YAML
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _text(value: object) -> str:
    """In one line and without control characters, which a terminal might obey."""
    return "".join(c for c in value if c.isprintable()) if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def runs_in(folder: Path, depth: int) -> Iterator[Path]:
    """The run folders in a folder and down to `depth` levels below it, by name; none within another, and no hidden ones."""
    if is_run(folder):
        yield folder
        return
    if depth == 0:
        return
    try:
        below = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # a folder that may not be opened has nothing to show
        return
    for name in below:
        yield from runs_in(folder / name, depth - 1)


def found_here(folder: Path = Path()) -> list[RunFolder]:
    """Those in runs/ and directly below this folder."""
    below = [path for path in runs_in(folder, 1) if path.name != "runs"]
    return [read(path) for path in dict.fromkeys([*runs_in(folder / "runs", DEEP), *below])]
