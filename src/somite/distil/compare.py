"""Was it worth it? The pupil beside the same pupil untaught and the teacher, case by case on the test split."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import yaml

from .. import evaluation
from ..files import read_json, write_json, write_text
from ..pipeline import Run, load
from ..recipe import dump
from ..report.card import write_card
from ..report.html import write_report
from ..sampling import arguments
from ..tasks.task import Row
from ..trainer.run import train
from ..wording import count
from .lesson import Lesson

UNTAUGHT, TEACHER = "untaught", "teacher"  # folders in the pupil's: a run, and an evaluation of the teacher
SCORING = ("tolerance", "boundary", "bins")  # of a segmentation, what makes its metrics


def compare(teacher: Run, lesson: Lesson, progress: Callable[[Iterable], Iterable] = iter) -> str:
    """Train the pupil untaught, evaluate all three on the pupil's test split, and write comparison.csv and .md. Returns them as text."""
    out = lesson.out
    train(lesson.untaught, out / UNTAUGHT, lesson.name)
    names = {"taught": out, "untaught": out / UNTAUGHT, "teacher": out / TEACHER}
    pupils = {name: opened(names[name], teacher) for name in ("taught", "untaught")}
    runs = {**pupils, "teacher": judged(teacher, pupils["taught"])}
    about = json.loads(json.dumps({name: evaluation.fingerprint(run) for name, run in runs.items()}, default=str))
    done = out / "comparison.json"
    if not done.is_file() or read_json(done).get("about") != about:
        for name, run in runs.items():
            evaluation.evaluate(run, "test", names[name], progress)
        for run in pupils.values():
            write_card(run)
            write_report(run, run.path)
    pairs = [("taught", "untaught"), ("taught", "teacher"), ("untaught", "teacher")]
    tables = {f"{first} - {second}": evaluation.comparison(names[first], names[second])[0] for first, second in pairs}
    rows = [{"comparison": name, **row} for name, found in tables.items() for row in found]
    evaluation.write_rows(out / "comparison.csv", rows)
    text = page(lesson, runs, {name: read_json(path / "metrics.json") for name, path in names.items()}, tables)
    write_text(out / "comparison.md", text)
    write_json(done, {"about": about, "rows": rows})
    return text


def opened(path: Path, like: Run) -> Run:
    """On the same device. Its classes were built to train it."""
    return load(path, trust=True, device=str(next(like.method.parameters()).device))


def judged(teacher: Run, pupil: Run) -> Run:
    """The teacher asked about the pupil's test cases, with its own preprocessing, and scored as the pupil is."""
    scoring = {f"--task.{name}": str(value) for name, value in told(pupil).items() if name in SCORING}
    runs = [replace(run, recipe=replace(run.recipe, data=run.data.over(pupil.data)), home=run.trained_on, folds=()) for run in teacher.runs]
    first, *folds = [run.under({**scoring, "--task.steps": "null"}) for run in runs]
    return replace(first, folds=tuple(folds))


def told(run: Run) -> dict[str, object]:
    """The arguments of a run's task."""
    return arguments(yaml.safe_load(dump(run.config))["task"])


def page(lesson: Lesson, runs: dict[str, Run], summaries: dict[str, dict], tables: dict[str, list[Row]]) -> str:
    """In Markdown."""
    names = list(summaries["taught"]["metrics"])
    first = next(iter(tables.values()))[0]
    lines = [
        f"# {lesson.name or lesson.into.stem}, taught by {runs['teacher'].path.resolve().name}",
        "",
        f"{count(first['cases'], 'row')} of {summaries['taught']['kind']} of {count(first['groups'], 'group')}, the test split. The teacher has "
        f"{lesson.weight:g} of the loss, at temperature {lesson.temperature:g}; the untaught pupil has the same recipe, seed, steps and labelled images.",
        "",
        "| | weights | members | reverse steps | " + " | ".join(names) + " |",
        "|---|---:|---:|---:|" + "---|" * len(names),
    ]
    for name, summary in summaries.items():
        weights = sum(p.numel() for run in runs[name].runs for p in run.method.parameters())
        means = " | ".join(evaluation.with_interval(summary["metrics"][metric]) for metric in names)
        lines.append(f"| {name} | {weights:,} | {summary['members'] * len(runs[name].runs)} | {summary['steps']} | {means} |")
    for name, rows in tables.items():
        lines += ["", f"## {name}", "", "| | mean difference [95 % interval] | p (Holm) |", "|---|---|---:|"]
        lines += [f"| {row['metric']} | {evaluation.with_interval(row)} | {row['p_holm']:.3g} |" for row in rows]
    lines += [
        "",
        "Differences are paired, case by case; intervals are percentiles of a bootstrap over groups, p is Wilcoxon's over groups.",
    ]
    return "\n".join(lines) + "\n"
