"""What is known of a run: the files that training and evaluation left, read once for the report and the model card."""

import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation import ANSWERS, read_rows
from ..files import read_json
from ..pipeline import Run
from ..tasks.task import Row
from ..tasks.view import Found
from ..types import Network


@dataclass
class History:
    """How the run was trained; imported weights have none of it."""

    metrics: list[Row]  # (step, metric, value)
    best: dict[str, float] | None  # the score and step of the weights that were kept
    environment: dict[str, Any]


def evaluation(run: Path, folder: Path) -> Found:
    """The files that `somite evaluate` wrote into a folder. Raises InputError where it holds no evaluation."""
    missing = [name for name in ("metrics.json", "rows.csv") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} holds no evaluation ({' and '.join(missing)} missing); run `somite evaluate {run}` first")
    summary = read_json(folder / "metrics.json")
    tables = {name: read_rows(path) for name in summary.get("tables", ()) if (path := folder / f"{Path(name).name}.csv").is_file()}
    return Found(summary, read_rows(folder / "rows.csv"), tables, folder / ANSWERS)


def history(run: Path) -> History:
    metrics = run / "metrics.csv"
    rows = read_rows(metrics) if metrics.is_file() else []
    return History(
        [{**row, "metric": row["metric"].replace("val/dice", "val/score")} for row in rows],  # its name until version 0.1.0
        optional(run / "training.json").get("best"),
        optional(run / "environment.json"),
    )


def optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def title(run: Run, environment: dict[str, Any]) -> str:
    """The recipe's name as training wrote it down, else the run folder's."""
    return environment.get("recipe") or run.path.resolve().name


def weights(run: Run) -> int:
    return sum(p.numel() for p in run.method.parameters() if p.requires_grad)


def network(run: Run) -> str:
    return type(innermost(run)).__name__


def innermost(run: Run) -> Network:
    """The network within those around it, which cut windows, mirror or guide."""
    network = run.method.network
    while isinstance(inner := getattr(network, "network", None), Network):
        network = inner
    return network


def method(run: Run) -> str:
    """The method's class in words: "Diffusion" is "diffusion", "FeedForward" is "feed forward"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(run.method).__name__).lower()


def source(run: Run) -> str:
    """The sentence that names the network's paper: the first that carries a year, of its file or its class."""
    kind = type(innermost(run))
    told = [inspect.cleandoc(text).split("\n\n")[0] for text in (sys.modules[kind.__module__].__doc__, kind.__doc__) if text]
    dated = [text for text in told if re.search(r"\b(19|20)\d\d\b", text)]
    return " ".join([*dated, *told, kind.__name__][0].split())
