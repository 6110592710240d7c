"""Few reverse steps: equally spaced, or placed where the image is worth most, at equal numbers of evaluations.

The placement comes from a `benefit.csv` of `somite analyse timesteps`. Measure it on another split than the one that is
scored here (by default val there, test here). One step is T-1 either way, so comparisons start at two.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..data.digest import digest
from ..data.record import Case
from ..diffusion.methods import Diffusion
from ..diffusion.timesteps import benefit_knots, steps_by_benefit
from ..environment import environment
from ..errors import InputError
from ..evaluation import fingerprint, write_rows
from ..files import write_json
from ..metrics.intervals import as_json, holm, interval, paired
from ..parts import Parts, clear
from ..pipeline import Run
from ..tasks.task import Row
from . import figures

EQUAL, BENEFIT = "equal", "benefit"
METRICS = ("dice", "ece")


def analyse_placement(
    run: Run,
    benefit: Path,
    out: Path,
    steps: Sequence[int] = (2, 3, 5, 10),
    split: str = "test",
    limit: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Path]:
    """Writes placement.csv (a row for each case, number of steps and placement), summary.json (differences with intervals
    and p-values, Holm over all of them), placement.svg and .png. The same noise starts both; limit: the first so many cases.
    The steps of a run's folds are placed too. Stopped on the way, it goes on from the cases that are done.
    """
    counts = sorted(set(steps))
    if not counts or counts[0] < 2 or (limit is not None and limit < 1):
        raise InputError(f"--steps {list(steps)}: give numbers of steps from 2 on, and --limit from 1 on")
    if run.method.placed:
        raise InputError("the steps of this run are placed already; name the benefit.csv once, without --benefit")
    cases = run.recipe.data.cases(split)[:limit]
    run.unseen(cases)
    runs = {(EQUAL, count): run.at(steps=count) for count in counts} | {(BENEFIT, count): placed(run, benefit, count) for count in counts}
    plans = {count: [one.method.placed for one in runs[BENEFIT, count].runs] for count in counts}
    rows: list[Row] = []
    for (placement, count), one in runs.items():
        key = {"placement": placement, "steps": count, "members": one.sampling.members}
        parts = Parts(out / f"{placement}-{count}.parts", fingerprint(one))
        for case in progress(cases):
            rows += [{**key, **row} for row in parts.get(digest([case]), lambda one=one, case=case: scored(one, case))]
    found = summary(rows, counts)
    about = {"run": run.path.name, "folds": [str(one.path) for one in run.folds], "split": split}
    about |= {"seed": run.sampling.seed, "members": run.sampling.members, "benefit": str(benefit), "placed": plans}  # of each run, in order
    paths = {"rows": out / "placement.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], rows)
    write_json(paths["summary"], {**about, "benefit minus equal": found, "environment": environment()})
    paths["svg"], paths["png"] = figures.save(figure(rows, counts), out, "placement")
    for placement in (EQUAL, BENEFIT):
        clear(out, f"{placement}-*.parts")
    return paths


def placed(run: Run, benefit: Path, steps: int | None = None) -> Run:
    """The run with its (or so many) steps placed by the benefit of the image, which `somite analyse timesteps` measured."""
    knots = benefit_knots(benefit)

    def one(each: Run) -> Run:
        if not isinstance(each.method, Diffusion):
            raise InputError(f"{each.path} is feed-forward and has no timesteps to place; leave --benefit out")
        count = each.method.steps if steps is None else steps
        return each.at(steps=count, placed=steps_by_benefit(knots, each.method.schedule, count))

    return replace(one(replace(run, folds=())), folds=tuple(one(fold) for fold in run.folds))


def scored(run: Run, case: Case) -> list[Row]:
    return run.recipe.task.score(run.answer(case, keep=True)).rows


def summary(rows: Sequence[Row], counts: Sequence[int]) -> list[dict[str, Any]]:
    """The paired differences benefit - equal; p-values adjusted for their number."""
    made = []
    for count in counts:
        for metric in METRICS:
            ours, theirs = (
                {(r["case"], r["label"]): r for r in rows if (r["steps"], r["placement"]) == (count, placement)}
                for placement in (BENEFIT, EQUAL)
            )
            groups = [row["group"] for row in ours.values()]
            test = paired([row[metric] for row in ours.values()], [theirs[key][metric] for key in ours], groups)
            made.append((count, metric, test))
    adjusted = holm([test.p_value for *_, test in made])
    return [
        {"steps": count, "metric": metric, **as_json(test.difference), "p_holm": p}
        for (count, metric, test), p in zip(made, adjusted, strict=True)
    ]


@figures.styled
def figure(rows: Sequence[Row], counts: Sequence[int]) -> Figure:
    """Mean Dice and ECE by number of evaluations, for both placements."""
    made = Figure(figsize=(7, 2.9), layout="constrained")
    for axes, metric in zip(made.subplots(1, len(METRICS)), METRICS, strict=True):
        for placement, colour, marker in ((EQUAL, figures.GREY, "o"), (BENEFIT, figures.COLOURS[0], "^")):
            here = [[r for r in rows if (r["placement"], r["steps"]) == (placement, count)] for count in counts]
            found = [interval([r[metric] for r in some], [r["group"] for r in some]) for some in here]
            axes.plot(counts, [one.mean for one in found], marker=marker, color=colour, label=placement)
            axes.fill_between(counts, [one.low for one in found], [one.high for one in found], color=colour, alpha=0.12, lw=0)
        axes.set(xlabel="evaluations a sample", ylabel={"dice": "Dice", "ece": "ECE a case"}[metric], xticks=list(counts))
    made.axes[0].legend(title="steps are spaced")
    return made
