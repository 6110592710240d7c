"""Which cases the report shows, and how each looks when it is predicted once more as the evaluation did."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.record import Case
from ..metrics.overlap import overlap
from ..pipeline import Run
from ..predict.ensemble import Result
from ..tasks.task import Row
from .pictures import Panel, panels, view
from .words import number

EACH = 3  # the worst, the median and the best so many
SAME = 5e-3  # a difference in Dice that is more than another machine's rounding


@dataclass(frozen=True)
class Shown:
    """One case in the report."""

    id: str
    facts: list[str]
    panels: list[Panel]
    differs: bool  # the prediction made now is not the one that was scored


@dataclass(frozen=True)
class Gallery:
    groups: dict[str, list[Shown]]
    most: float  # the spread that is drawn darkest
    slices: bool
    labels: bool


def gallery(run: Run, summary: dict[str, Any], rows: Sequence[Row]) -> Gallery | None:
    """The worst, median and best cases by mean Dice over labels; None where the evaluated cases are no longer there."""
    rows_of: dict[str, list[Row]] = {}
    for row in rows:
        rows_of.setdefault(row["case"], []).append(row)
    at_hand = {case.id: case for case in run.recipe.data.cases(summary["split"])}
    if not rows_of.keys() <= at_hand.keys():
        return None
    groups = chosen(sorted(rows_of, key=lambda id: (score(rows_of[id]), id)))
    ids = [id for group in groups.values() for id in group]
    found = dict(zip(ids, predictions(run, summary, [at_hand[id] for id in ids]), strict=True))
    most = max(math.ceil(10 * max(float(result.spread[0].max()) for result in found.values())) / 10, 0.1)
    shown = {title: [show(run, rows_of[id], found[id], most) for id in group] for title, group in groups.items()}
    first = found[ids[0]]
    return Gallery(shown, most, len(first.record.shape) == 3, len(first.probability) > 1)


def score(rows: Sequence[Row]) -> float:
    return sum(float(row["dice"]) for row in rows) / len(rows)


def chosen(ranked: Sequence[str]) -> dict[str, list[str]]:
    """From the lowest Dice to the highest: the ends and the middle, no case twice."""
    each = min(EACH, max(1, len(ranked) // 3))
    worst, rest = ranked[:each], ranked[each:]
    best, rest = rest[-each:][::-1], rest[:-each]
    start = max(0, (len(rest) - each) // 2)
    groups = {"Lowest Dice": list(worst), "Around the median": list(rest[start : start + each]), "Highest Dice": list(best)}
    return {title: ids for title, ids in groups.items() if ids}


def predictions(run: Run, summary: dict[str, Any], cases: Sequence[Case]) -> Iterator[Result]:
    """As the evaluation predicted them: its seed, members and steps."""
    before = run.method.steps
    run.take(summary["steps"])
    try:
        for case in cases:
            yield run.segment(case, summary["members"], summary["seed"])
    finally:
        run.take(before)


def show(run: Run, rows: Sequence[Row], result: Result, most: float) -> Shown:
    record = result.record
    look = view(record, result, run.recipe.data.preprocess.axis)
    several = len(rows) > 1
    facts = [f"Dice {number(score(rows))}", *([] if several else [f"size: {rows[0]['tercile']}"])]
    facts += [f"label {row['label']}: {number(float(row['dice']))} ({row['tercile']})" for row in rows if several]
    facts += [f"slice {look.index + 1} of {record.shape[look.axis]}"] if look.index is not None else []
    labels = range(1, max(len(result.probability), 2))
    now = sum(overlap(result.mask == label, record.truth == label)["dice"] for label in labels) / len(labels)
    return Shown(record.case.id, facts, panels(record, result, look, most), abs(now - score(rows)) > SAME)
