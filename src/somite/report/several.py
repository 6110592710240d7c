"""Several evaluated runs in one page: their numbers side by side, paired differences from the first, and the cases that tell them apart.

Differences, intervals and refusals are those of `somite compare`; here Holm's adjustment is over all differences of the page.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import pipeline
from ..errors import InputError
from ..evaluation import comparison, write_rows
from ..files import write_text
from ..metrics.intervals import holm
from ..overview.advice import steps
from ..overview.folder import read
from ..pipeline import Run
from ..tasks.task import Row
from ..tasks.view import HIGHER, LOWER, Found, Meaning, View
from ..wording import count, interval, number
from . import words
from .cases import SAME, score, uri
from .figures_several import differences
from .findings import evaluation, history, method, network, weights
from .html import chapter, template
from .words import Line

LEVEL = 0.05


@dataclass(frozen=True)
class Side:
    """One run of the page, as it was evaluated."""

    name: str
    run: Run
    found: Found
    view: View

    @property
    def rows(self) -> dict[str, list[Row]]:
        """Rows by case."""
        out: dict[str, list[Row]] = {}
        for row in self.found.rows:
            out.setdefault(row["case"], []).append(row)
        return out


@dataclass(frozen=True)
class Difference:
    """A paired difference, run minus reference, ready to print."""

    name: str
    run: str
    means: tuple[str, str]  # of the reference and of the run
    difference: str
    interval: str
    p: str
    verdict: str


@dataclass(frozen=True)
class Case:
    """A case with each run's score, and its pictures: (run, facts, panels of name and data URI)."""

    id: str
    scores: list[str]
    spread: str
    strips: list[tuple[str, list[str], list[tuple[str, str]]]]


def write_several(
    paths: Sequence[Path],
    out: Path,
    split: str = "test",
    cases: int = 6,
    trust: bool = False,
    device: str | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Path:
    """Write the page `out`, and its paired differences as CSV beside it. The first run is the reference.

    cases: as many, those whose scores differ most, are answered once more by each run for their pictures. Raises InputError for runs
    that were not evaluated, or not on the same cases in the same way.
    """
    refuse(paths, out, cases)
    folders = [path if split == "test" else path / split for path in paths]
    found = [evaluation(path, folder) for path, folder in zip(paths, folders, strict=True)]
    compared = [comparison(folder, folders[0])[0] for folder in folders[1:]]
    sides = [side(*given, trust, device) for given in zip(named(paths), paths, found, strict=True)]
    tasks = {type(one.run.recipe.task).__name__ for one in sides}
    if len(tasks) > 1:
        raise InputError(f"{' and '.join(map(str, paths))} answer other questions ({', '.join(sorted(tasks))}); give runs of one task")
    rows = adjusted(sides, compared)
    page = template("several.html.j2")
    write_text(out, page.render(context(sides, rows, cases, progress), number=number, interval=interval, count=count))
    write_rows(out.with_suffix(".csv"), rows)
    return out


def refuse(paths: Sequence[Path], out: Path, cases: int) -> None:
    """Raises InputError for what is no comparison."""
    if len(paths) < 2:
        raise InputError(f"somite report puts two runs or more side by side; that of one run is written by `somite evaluate {paths[0]}`")
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a run is named twice, and does not differ from itself; name each once")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: a report is a page; name it {out.with_suffix('.html')}")
    if cases < 0:
        raise InputError(f"--cases {cases}: want a number of cases to show, or 0")


def named(paths: Sequence[Path]) -> list[str]:
    """Folder names, or whole paths where two have one name."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def side(name: str, path: Path, found: Found, trust: bool, device: str | None) -> Side:
    """A run that samples as it did in the evaluation."""
    summary = found.summary
    changed = dict(text.split("=", 1) for text in summary.get("overrides", ()) if "=" in text)
    run = pipeline.load(path, trust, device).under(changed, summary["members"], summary["seed"])
    return Side(name, run, found, run.recipe.task.view(found))


def adjusted(sides: Sequence[Side], compared: Sequence[list[Row]]) -> list[Row]:
    """All paired differences of the page, Holm over all of them."""
    rows = [
        {
            "run": str(one.run.path),
            "reference": str(sides[0].run.path),
            **{{"first": "run_mean", "second": "reference_mean", "mean": "difference"}.get(key, key): value for key, value in row.items()},
        }
        for one, found in zip(sides[1:], compared, strict=True)
        for row in found
    ]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def context(sides: Sequence[Side], rows: Sequence[Row], cases: int, progress: Callable[[Iterable[Any]], Iterable[Any]]) -> dict[str, Any]:
    first = sides[0]
    shown = printed(sides, rows)
    beside = first.run.recipe.task.beside({one.name: one.found for one in sides})
    chosen = apart(sides)[:cases]
    return {
        "notice": words.NOTICE,
        "limits": words.LIMITS,
        "sides": sides,
        "about": [about(one) for one in sides],
        "names": [one.name for one in sides],
        "summary": first.found.summary,
        "view": first.view,
        "cases_count": len(first.rows),
        "groups": first.found.summary["metrics"][first.view.headline]["groups"],
        "lead": lead(sides, shown),
        "table": table(sides),
        "differences": shown,
        "forest": chapter(differences(forest(sides, rows))),
        "chapters": [chapter(section) for section in beside],
        "cases": pictured(sides, chosen, progress),
        "largest": len(apart(sides)),
    }


def about(one: Side) -> dict[str, str]:
    summary, past = one.found.summary, history(one.run.path)
    return {
        "Recipe": past.environment.get("recipe") or "-",
        "Network": f"{network(one.run)}, {weights(one.run):,} weights, {method(one.run)}",
        "Sampling": f"{count(summary['members'], 'member')}, {count(summary['steps'], 'reverse step')}, seed {summary['seed']}",
        "Training": f"{steps(read(one.run.path))}, seed {one.run.recipe.training.seed}",
        "Evaluated": summary.get("environment", {}).get("date", "-")[:10],
        "Folder": str(one.run.path),
    }


def table(sides: Sequence[Side]) -> list[tuple[str, str, list[Line | None]]]:
    """Each metric with every run's mean and interval: name, which way is better, a line a run."""
    lines = [{line.name: line for line in words.lines(one.view)} for one in sides]
    names = dict.fromkeys(name for some in lines for name in some)
    return [(name, next(some[name].better for some in lines if name in some), [some.get(name) for some in lines]) for name in names]


def meaning(view: View, found: Found, metric: str) -> Meaning:
    """What a column of rows means: the view holds the very entry of the summary."""
    entry = found.summary["metrics"][metric]
    return next((one.meaning for one in view.numbers if one.found is entry), Meaning(metric, "", "", share=False))


def printed(sides: Sequence[Side], rows: Sequence[Row]) -> list[Difference]:
    names = {str(one.run.path): one.name for one in sides}
    out = []
    for row in rows:
        told = meaning(sides[0].view, sides[0].found, row["metric"])
        means = number(row["reference_mean"]), number(row["run_mean"])
        found = {"mean": row["difference"], "low": row["low"], "high": row["high"], "groups": row["groups"]}
        p = "below 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        out.append(
            Difference(told.name, names[row["run"]], means, signed(row["difference"]), interval(found), p, verdict(row, told.better))
        )
    return out


def signed(x: float) -> str:
    return ("+" if x > 0 else "") + number(x)


def verdict(row: Row, better: str) -> str:
    """As studies decide: the whole interval on one side of zero, and p at most 0.05."""
    if row["low"] is None or row["p_holm"] > LEVEL or row["low"] <= 0 <= row["high"]:
        return "undecided"
    if better not in (HIGHER, LOWER):
        return "higher" if row["difference"] > 0 else "lower"
    return "better" if (row["difference"] > 0) == (better == HIGHER) else "worse"


def lead(sides: Sequence[Side], shown: Sequence[Difference]) -> str:
    """The result in a sentence for each run beside the reference."""
    first = sides[0]
    name = first.view.name
    mean = number(first.found.summary["metrics"][first.view.headline]["mean"])
    told = [f"The mean {name} of {first.name}, to which the others are compared, is {mean}."]
    headline = meaning(first.view, first.found, first.view.headline).name
    for one in (one for one in shown if one.name == headline):
        told += [f"{one.run}: {one.means[1]}, a paired difference of {one.difference} ({one.interval}), {one.verdict}."]
    return " ".join(told)


def forest(sides: Sequence[Side], rows: Sequence[Row]) -> dict[str, list[tuple[str, Row]]]:
    """By run, the differences of the metrics that lie in [0, 1], each with its name."""
    found: dict[str, list[tuple[str, Row]]] = {one.name: [] for one in sides[1:]}
    names = {str(one.run.path): one.name for one in sides}
    for row in rows:
        told = meaning(sides[0].view, sides[0].found, row["metric"])
        if told.share:
            found[names[row["run"]]].append((told.name, row))
    return found


def apart(sides: Sequence[Side]) -> list[tuple[str, list[float]]]:
    """The cases on which scores differ, most first: id, and each run's score by the metric that ranks."""
    rows = [one.rows for one in sides]
    found = [(id, [score(some[id], sides[0].view) for some in rows]) for id in rows[0]]
    differing = [one for one in found if max(one[1]) > min(one[1])]
    return sorted(differing, key=lambda one: (min(one[1]) - max(one[1]), one[0]))


def pictured(
    sides: Sequence[Side], chosen: Sequence[tuple[str, list[float]]], progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> list[Case]:
    """The cases with what each run answers now; without pictures where they are no longer there, or show nothing."""
    strips: dict[str, list[tuple[str, list[str], list[tuple[str, str]]]]] = {id: [] for id, _ in chosen}
    for one in progress(sides) if chosen else ():
        at_hand = {case.id: case for case in one.run.recipe.data.cases(one.found.summary["split"])}
        if not strips.keys() <= at_hand.keys():
            continue
        answers = {id: one.run.answer(at_hand[id], keep=True) for id in strips}
        made = one.run.recipe.task.pictures(list(answers.values()), [one.rows[id] for id in strips], one.run.recipe.data)
        if made is None:
            continue
        for id, panels, facts in zip(strips, made.panels, made.facts, strict=True):
            now, then = score(one.run.recipe.task.score(answers[id]).rows, one.view), score(one.rows[id], one.view)
            changed = ["predicted now, it differs from what was scored"] if abs(now - then) > SAME else []
            told = [f"{one.view.rank[1]} {number(then)}", *facts, *changed]
            strips[id].append((one.name, told, [(panel.name, uri(panel)) for panel in panels]))
    return [Case(id, [number(s) for s in scores], number(max(scores) - min(scores)), strips[id]) for id, scores in chosen]
