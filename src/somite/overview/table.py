"""`somite runs`: a table of runs. Ranked are only those that were scored on the same cases by the same metric."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..wording import count
from .folder import BEGUN, BROKEN, HALFWAY, RunFolder, Score, found_here, read, runs_in

DEEP = 4  # levels below a folder that is named
COLUMNS = ("run", "recipe", "data", "steps", "score", "split", "date")
UNSCORED = ("", "", "")


def data_key(score: Score) -> tuple[str, str, str]:
    """What two scores must have in common to be ranked."""
    return (score.digest or score.root, score.split, score.metric)


def listed(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs in folders, or the folders themselves where they are runs. Raises InputError for a folder that is not there."""
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing:
        raise InputError(f"{missing} is no folder; give run folders or folders that hold some, or none for those of this folder")
    return [read(path) for path in dict.fromkeys(path for folder in folders for path in runs_in(folder, DEEP))]


SORTS: dict[str, Callable[[RunFolder], Any]] = {
    "score": lambda run: -run.score.mean if run.score else 0.0,
    "date": lambda run: tuple(-ord(c) for c in run.date),  # the newest first
    "steps": lambda run: -(run.done or 0),
    "recipe": lambda run: run.recipe,
    "run": lambda run: str(run.path),
}


def grouped(runs: Sequence[RunFolder], sort: str) -> dict[tuple[str, str, str], list[RunFolder]]:
    """By the cases that they were scored on, the largest group first and those without a score last; sorted within."""
    groups: dict[tuple[str, str, str], list[RunFolder]] = {}
    for run in sorted(sorted(runs, key=lambda run: str(run.path)), key=SORTS[sort]):
        groups.setdefault(data_key(run.score) if run.score else UNSCORED, []).append(run)
    return dict(sorted(groups.items(), key=lambda item: (item[0] == UNSCORED, -len(item[1]), item[0])))


def as_text(runs: Sequence[RunFolder], sort: str) -> str:
    if not runs:
        return "no runs here; somite train makes one"
    groups = grouped(runs, sort)
    lines = {key: [row(run) for run in some] for key, some in groups.items()}
    widths = [max(len(cells[i]) for cells in [COLUMNS, *(cells for some in lines.values() for cells in some)]) for i in range(len(COLUMNS))]
    out = []
    for key, some in groups.items():
        out += [heading(some[0].score), laid_out(COLUMNS, widths), *(laid_out(cells, widths) for cells in lines[key]), ""]
    if len([key for key in groups if key != UNSCORED]) > 1:
        out.append("Each group has cases of its own: scores of different groups do not compare.")
    out += [f"{run.path}: {run.fault}" for run in runs if run.state == BROKEN]
    return "\n".join(out).rstrip()


def heading(score: Score | None) -> str:
    if score is None:
        return "Without a score:"
    which = f", cases {score.digest[:12]}" if score.digest else ""
    return (
        f"{score.metric} on {score.root or 'unnamed data'}, {score.split} split, {count(score.cases, 'row')}{which}; mean [95 % interval]:"
    )


def row(run: RunFolder) -> tuple[str, ...]:
    steps = f"{run.done or 0:,}" + ("" if run.planned is None else f"/{run.planned:,}")
    if run.state in (BROKEN, "imported"):
        steps = run.state
    told = scored(run.score) if run.score else run.state if run.state in (BROKEN, BEGUN, HALFWAY) else "-"
    split = run.score.split if run.score else "-"
    return (str(run.path), run.recipe or "-", run.data or "-", steps, told, split, run.date[:10] or "-")


def scored(score: Score) -> str:
    """Three decimals: the intervals of test sets are no narrower."""
    return f"{score.mean:.3f}" + ("" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]")


def laid_out(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def records(runs: Sequence[RunFolder], sort: str) -> list[dict[str, Any]]:
    """For machines: a flat record a run, numbers as they are; `group` counts the sets of cases from 1, 0 where there is no score."""
    out = []
    for number, (key, some) in enumerate(grouped(runs, sort).items(), 1):
        for run in some:
            score = run.score
            out.append(
                {
                    "run": str(run.path),
                    "group": 0 if key == UNSCORED else number,
                    "state": run.state,
                    "recipe": run.recipe,
                    "task": run.task,
                    "data": run.data,
                    "steps": run.done,
                    "planned": run.planned,
                    "metric": score and score.metric,
                    "mean": score and score.mean,
                    "low": score and score.low,
                    "high": score and score.high,
                    "rows": score and score.cases,
                    "split": score and score.split,
                    "evaluated_on": score and score.root,
                    "cases_sha256": score and score.digest,
                    "calibrated": " ".join(run.calibrated),
                    "date": run.date,
                    "fault": run.fault,
                }
            )
    return out


def as_json(runs: Sequence[RunFolder], sort: str) -> str:
    return json.dumps(records(runs, sort), indent=2, ensure_ascii=False)


def as_csv(runs: Sequence[RunFolder], sort: str) -> str:
    found = records(runs, sort)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(found[0]) if found else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue().rstrip("\n")


FORMS: dict[str | None, Callable[[Sequence[RunFolder], str], str]] = {None: as_text, "json": as_json, "csv": as_csv}


def overview(folders: Sequence[Path], sort: str, form: str | None) -> str:
    """What `somite runs` prints. Without folders: of runs/ and this folder."""
    return FORMS[form](listed(folders) if folders else found_here(), sort)
