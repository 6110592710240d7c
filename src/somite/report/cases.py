"""Which cases the report shows, and how each looks when it is answered once more as the evaluation did."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from ..pipeline import Run
from ..tasks.task import Row
from ..tasks.view import Found, Panel, Pictures, View
from ..wording import number

EACH = 3  # the worst, the median and the best so many
SAME = 5e-3  # a difference in the metric that ranks that is more than another machine's rounding


@dataclass(frozen=True)
class Shown:
    """One case in the report."""

    id: str
    facts: list[str]
    panels: list[tuple[str, str]]  # name and data URI
    differs: bool  # the answer made now is not the one that was scored


@dataclass(frozen=True)
class Gallery:
    groups: dict[str, list[Shown]]
    pictures: Pictures


def gallery(run: Run, view: View, found: Found) -> Gallery | None:
    """The worst, median and best cases by the metric that ranks them; None where the evaluated cases are no longer there, or show nothing."""
    rows: dict[str, list[Row]] = {}
    for row in found.rows:
        rows.setdefault(row["case"], []).append(row)
    at_hand = {case.id: case for case in run.recipe.data.cases(found.summary["split"])}
    if not rows.keys() <= at_hand.keys():
        return None
    groups = chosen(sorted(rows, key=lambda id: (score(rows[id], view), id)), view.rank[1])
    ids = [id for group in groups.values() for id in group]
    answers = {id: run.answer(at_hand[id], keep=True) for id in ids}
    made = run.recipe.task.pictures(list(answers.values()), [rows[id] for id in ids], run.recipe.data)
    if made is None:
        return None
    shown = {}
    for id, panels, facts in zip(ids, made.panels, made.facts, strict=True):
        now = score(run.recipe.task.score(answers[id]).rows, view)
        told = [f"{view.rank[1]} {number(score(rows[id], view))}", *facts]
        shown[id] = Shown(id, told, [(one.name, uri(one)) for one in panels], abs(now - score(rows[id], view)) > SAME)
    return Gallery({title: [shown[id] for id in group] for title, group in groups.items()}, made)


def score(rows: Sequence[Row], view: View) -> float:
    return sum(float(row[view.rank[0]]) for row in rows) / len(rows)


def chosen(ranked: Sequence[str], name: str) -> dict[str, list[str]]:
    """From the lowest to the highest: the ends and the middle, no case twice."""
    each = min(EACH, max(1, len(ranked) // 3))
    worst, rest = ranked[:each], ranked[each:]
    best, rest = rest[-each:][::-1], rest[:-each]
    start = max(0, (len(rest) - each) // 2)
    groups = {f"Lowest {name}": list(worst), "Around the median": list(rest[start : start + each]), f"Highest {name}": list(best)}
    return {title: ids for title, ids in groups.items() if ids}


def uri(panel: Panel) -> str:
    buffer = io.BytesIO()
    if panel.photograph:
        panel.image.save(buffer, format="JPEG", optimize=True, quality=82, subsampling=0)
    else:
        panel.image.save(buffer, format="PNG", optimize=True, bits=panel.bits)
    return f"data:image/{'jpeg' if panel.photograph else 'png'};base64," + base64.b64encode(buffer.getvalue()).decode()
