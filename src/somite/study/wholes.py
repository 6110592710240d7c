"""Studies whose numbers are of whole sets: the area under a curve, the distance of two sets of images.

Such a number is no mean over cases. It is a function of weights of the cases, `Measure`, so that a bootstrap over groups (patients) is one
call with many rows of weights; runs of one cell (seeds, folds) are averaged inside each draw, and two cells are compared under the same
weights, as the same cases under the same draw.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.intervals import Interval, reweighted_interval
from .verdict import Claim, text

Rows = Sequence[dict[str, Any]]
Measure = Callable[[np.ndarray], np.ndarray]  # weights (draws, cases) -> (draws,)
RULE = """A claim holds where the whole 95 % interval of the difference lies on its side of zero: a bootstrap over groups (patients) of the test set,
the seeds that both have averaged within each draw. The intervals say how far the test cases bear it, not how another training would turn out: for that see the
spread over seeds. They are not adjusted for the number of claims."""


@dataclass(frozen=True)
class Cell:
    """What one cell of the grid measured, by seed; `groups` of the cases, the same for all cells of a study."""

    names: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Measure]]
    groups: tuple[str, ...]

    def mean(self, metric: str, seeds: Sequence[str] | None = None) -> Measure:
        """Over these seeds, by default over all."""
        chosen = [self.runs[seed][metric] for seed in (self.runs if seeds is None else seeds)]
        return lambda w: np.mean([measure(w) for measure in chosen], axis=0)

    def interval(self, metric: str) -> Interval:
        return reweighted_interval(self.mean(metric), self.groups)

    def spread(self, metric: str) -> float:
        """The standard deviation over seeds; NaN for one."""
        ones = np.ones((1, len(self.groups)))
        return float(np.std([run[metric](ones)[0] for run in self.runs.values()], ddof=1)) if len(self.runs) > 1 else float("nan")


def cells(rows: Rows, columns: Sequence[str], measures: Callable[[Rows], tuple[Mapping[str, Measure], Sequence[str]]]) -> dict[tuple, Cell]:
    """By the values of `columns`, in the order of the grid. `measures`: those of one run's rows, which are of the same cases in the same
    order for every run, with the groups of these cases.
    """
    parts: dict[tuple, dict[str, list]] = {}
    for row in rows:
        parts.setdefault(tuple(row[name] for name in columns), {}).setdefault(str(row["seed"]), []).append(row)
    found = {}
    for names, runs in parts.items():
        measured = {seed: measures(run) for seed, run in runs.items()}
        found[names] = Cell(names, {seed: one for seed, (one, _) in measured.items()}, tuple(next(iter(measured.values()))[1]))
    return found


def compared(words: str, first: Cell | None, second: Cell | None, metric: str, below: bool) -> list[Claim]:
    """The claim that the first is above the second (or below it), where both have been run on the same cases: over the seeds of both."""
    if first is None or second is None or first.groups != second.groups:
        return []
    seeds = [seed for seed in first.runs if seed in second.runs]
    if not seeds:
        return []
    one, other = first.mean(metric, seeds), second.mean(metric, seeds)
    return [Claim(words, reweighted_interval(lambda w: one(w) - other(w), first.groups), below)]


def table(found: Mapping[tuple, Cell], columns: Sequence[str], metrics: Mapping[str, str]) -> str:
    """Markdown: a line a cell, each number with its interval, and the spread of the first over seeds."""
    first = next(iter(metrics))
    head = [*columns, "seeds", *metrics.values(), f"SD of {metrics[first]} over seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for names, cell in found.items():
        told = [text(cell.interval(metric)) if metric in next(iter(cell.runs.values())) else "" for metric in metrics]
        spread = cell.spread(first)
        lines.append("| " + " | ".join([*names, str(len(cell.runs)), *told, "" if np.isnan(spread) else f"{spread:.4f}"]) + " |")
    return "\n".join(lines)


def differences(found: Mapping[tuple, Cell], base: tuple, columns: Sequence[str], metrics: Mapping[str, str]) -> str:
    """Markdown: every other cell less the base, paired, with intervals."""
    if base not in found:
        return ""
    head = [*columns, *metrics.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for names, cell in found.items():
        if names != base and cell.groups == found[base].groups:
            told = [text(one.difference) for metric in metrics for one in compared("", cell, found[base], metric, False)]
            lines.append("| " + " | ".join([*names, *told]) + " |")
    return "\n".join(lines)
