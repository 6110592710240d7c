"""Evaluation writes rows first and averages after: rows.csv and the task's further tables, then metrics.json.

It knows cases, groups and intervals; what a metric is called and means is the task's.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data.digest import digest, summary
from .data.record import Case
from .environment import environment
from .errors import InputError
from .files import read_json, replacing, sha256, write_json
from .metrics.intervals import as_json, holm, interval, paired
from .parts import Parts
from .pipeline import Run
from .quality import Judge
from .tasks.task import Beside, Row, Scored, Task, Variation

ANSWERS = "answers"  # the folder of the files that a task keeps of its answers


def evaluate(run: Run, split: str, out: Path, progress=iter, judging: Judge | None = None) -> dict[str, Any]:  # noqa: ANN001
    """Score a split of the run's own data into the folder `out`; `progress` wraps the cases. Returns the summary.

    judging: foretells each score, for a table "quality" that holds what was foretold beside what came.

    Stopped on the way, it goes on from the cases that are done, if nothing of what they depend on has changed.
    """
    data, task = run.recipe.data, run.recipe.task
    cases = data.cases(split)
    flat = data.read(cases[0]).spacing is None
    settings, content = task.settings(), digest(cases)
    varied = [(variation, run.at(**variation.options)) for variation in task.variations(run.method)]
    quality = {} if judging is None else {"quality": judging.foretelling.told}
    parts = Parts(out / "evaluation.parts", {**fingerprint(run), **settings, **quality})
    found = [
        parts.get(digest([case]), lambda case=case: as_tree(score(run, case, varied, out / ANSWERS, judging))) for case in progress(cases)
    ]
    rows = task.stratified([row for one in found for row in one["rows"]])
    tables = {name: [row for one in found for row in one["tables"][name]] for name in found[0]["tables"]}
    tables |= task.compared(tables, Beside(cases, run.trained_on, parts.arrays, progress))
    summary_ = {
        "split": split,
        **run.told,
        **settings,
        "settings": list(settings),  # the names of the task's own
        "root": data.root,
        "unit": "px" if flat else "mm",
        "kind": "images" if flat else "volumes",  # each scored whole: a Dice of volumes is never one of slices
        "metrics": means(rows, task),
        **task.conclude(rows, tables),
        **quality,
        "tables": [name for name, some in tables.items() if some],
        "data": {"digest": content, **summary(cases)},
        "environment": environment(),
    }
    write_rows(out / "rows.csv", rows)
    for name in summary_["tables"]:
        write_rows(out / f"{name}.csv", tables[name])
    write_json(out / "metrics.json", summary_)
    parts.clear()
    return summary_


def score(run: Run, case: Case, varied: Sequence[tuple[Variation, Run]], answers: Path, judging: Judge | None = None) -> Scored:
    """One case: the run's own answer with all its metrics and the files that are kept of it, and a point of a curve for each variation."""
    task, record = run.recipe.task, run.recipe.data.read(case)
    answer = run.answer(record, keep=True)
    if task.kept:
        task.write(answer, answers, task.kept)
    scored = task.score(answer)
    for variation, other in varied:
        scored.tables.setdefault("curves", []).append(task.point(other.answer(record), variation))
    if judging is not None:
        scored.tables["quality"] = [{"case": case.id, "group": case.group, **judging(answer), "score": task.goodness(answer)}]
    return scored


def as_tree(scored: Scored) -> dict[str, Any]:
    return {"rows": scored.rows, "tables": scored.tables}


def fingerprint(run: Run) -> dict[str, Any]:
    """What every answer of a run depends on, beside the case."""
    return {
        "weights": [sha256(one.path / "weights.safetensors") for one in run.runs],
        "recipes": [one.source for one in run.runs],
        **run.told,
    }


def means(rows: Sequence[Row], task: Task) -> dict[str, Any]:
    """Each metric's mean over cases with its interval over groups."""
    groups = [row["group"] for row in rows]
    return {name: as_json(interval([row[name] for row in rows], groups)) for name in rows[0] if name not in task.keys}


def compare(first: Path, second: Path) -> list[Row]:
    """Paired differences first - second of each metric over the cases that both evaluated; Holm over the metrics."""
    ours, theirs = rows_by_key(first), rows_by_key(second)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise InputError(f"{first} and {second} share no cases; evaluate both runs on the same split of the same data")
    names = [name for name in metrics_of(first) if name in next(iter(theirs.values()))]
    if not names:
        raise InputError(f"{second / 'rows.csv'} has none of the metrics of {first}; run `somite evaluate {second}` again")
    for run, rows in ((first, ours), (second, theirs)):
        lacking = next((name for name in names if any(not is_number(row.get(name)) for row in rows.values())), None)
        if lacking:
            raise InputError(f"{run / 'rows.csv'} has no numbers in the column {lacking}; run `somite evaluate {run}` again")
    groups = [ours[key]["group"] for key in shared]
    out = []
    for name in names:
        a, b = ([float(rows[key][name]) for key in shared] for rows in (ours, theirs))
        found = paired(a, b, groups)
        out.append(
            {"metric": name, "first": float(np.mean(a)), "second": float(np.mean(b)), **as_json(found.difference), "p": found.p_value}
        )
    for row, adjusted in zip(out, holm([row["p"] for row in out]), strict=True):
        row["p_holm"] = adjusted
    return out


def rows_by_key(run: Path) -> dict[tuple[str, str], Row]:
    """The rows of an evaluated run by case, and label where there are several."""
    path = run / "rows.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; run `somite evaluate {run}` first")
    rows = read_rows(path)
    if not rows or not {"case", "group"} <= set(rows[0]):
        raise InputError(f"{path} is no table of an evaluation (columns case, group and metrics); run `somite evaluate {run}` again")
    return {(row["case"], row.get("label", "")): row for row in rows}


def metrics_of(run: Path) -> list[str]:
    found = read_json(run / "metrics.json")
    names = found.get("metrics") if isinstance(found, dict) else None
    if not isinstance(names, dict):
        raise InputError(f"{run / 'metrics.json'} names no metrics; run `somite evaluate {run}` again")
    return list(names)


def is_number(text: str | None) -> bool:
    try:
        return bool(np.isfinite(float(text or "nan")))
    except ValueError:
        return False


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def table(summary: dict[str, Any]) -> str:
    """The main numbers as text."""
    cases = next(iter(summary["metrics"].values()))["cases"]
    lines = [
        f"{summary['split']}: {cases} rows of {summary.get('kind', 'cases')}, {summary['members']} members, {summary['steps']} reverse step(s); mean [95 % interval]"
    ]
    pooled = {f"{kind} {name}": found for kind in ("pooled", "sets") for name, found in summary.get(kind, {}).items()}
    lines += [line(name, found) for name, found in {**summary["metrics"], **pooled}.items()]
    return "\n".join(lines)


def line(name: str, found: dict[str, Any]) -> str:
    """A number with its interval, and by what it was measured where that is part of it."""
    return f"  {name:24} {with_interval(found)}" + (f"  by {found['by']}" if "by" in found else "")


def with_interval(found: dict[str, Any]) -> str:
    """A mean with its interval, where it has one."""
    return f"{found['mean']:.4f}" + ("" if found["low"] is None else f" [{found['low']:.4f}, {found['high']:.4f}]")


def comparison(first: Path, second: Path) -> tuple[list[Row], str]:
    """The rows of `compare` and the same as text."""
    rows = compare(first, second)
    ours, theirs = (read_json(run / "metrics.json") for run in (first, second))
    if ours["data"]["digest"] != theirs["data"]["digest"]:
        raise InputError(f"{first} and {second} were evaluated on other cases; evaluate both in the same way")
    for path, told in ((first, ours), (second, theirs)):
        if "settings" not in told:
            raise InputError(f"{path / 'metrics.json'} does not say how it was scored; run `somite evaluate {path}` again")
    for name in dict.fromkeys([*ours["settings"], *theirs["settings"]]):
        if name not in ("members", "fusion") and ours.get(name) != theirs.get(name):
            found = f"{ours.get(name)} and {theirs.get(name)}"
            raise InputError(f"{first} and {second} were evaluated with another {name} ({found}); evaluate both in the same way")
    fusion = ours.get("fusion") != theirs.get("fusion")
    lines = [f"{first} minus {second}, {rows[0]['cases']} shared cases; mean difference [95 % interval], p (Holm)"]
    for path, told in ((first, ours), (second, theirs)):
        fused = f", fused by {told.get('fusion')}" if fusion else ""
        lines.append(f"{path}: {told['members']} members, {told['steps']} reverse step(s){fused}")
    lines += [f"{line(row['metric'], row)}   p = {row['p_holm']:.3g}" for row in rows]
    return rows, "\n".join(lines)
