"""`somite` alone: the runs of this folder, how far each has come, and what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..wording import count
from .folder import BEGUN, BROKEN, EVALUATED, HALFWAY, IMPORTED, RunFolder, Score, found_here
from .table import data_key, scored

MOST = 6  # runs that are told of in full
FIRST = """No runs in this folder yet. To begin:

  somite predict zoo/nuclei IMAGE                                      a mask of your image by a run that comes with somite (somite zoo)
  somite demo                                                          train, predict, evaluate and report on bundled real images (minutes)
  somite doctor DIR                                                    check your own images and masks; then train on them:
  somite train medsegdiffnca/small --data.root DIR --out runs/mine     minutes on two cores; the same line again resumes
  somite recipes                                                       what else can be trained"""
END = "All commands: somite --help"
PREDICT = "somite predict {run} IMAGE --out masks{trust}"
# What a trained and evaluated run of a task is for; of all others masks or classes are predicted.
USES = {
    "Synthesis": "somite sample {run} --out images{trust}",
    "Pretraining": "somite train probe/small --backbone {run} --data.root LABELLED --out runs/probe",
    "Reconstruction": "somite train sdseg/small --data.root DIR --method.codec.weights.source {run} --out runs/latent",
}
CALIBRATED = ("Segmentation", "Classification")  # whose answers are probabilities that a temperature fits


def advice(folder: Path = Path()) -> str:
    runs = sorted(found_here(folder), key=lambda run: run.date, reverse=True)
    if not runs:
        return f"{FIRST}\n\n{END}"
    parts = [f"{count(len(runs), 'run')} in this folder, the newest first:", *(told(run) for run in runs[:MOST])]
    if len(runs) > MOST:
        parts.append(f"and {count(len(runs) - MOST, 'more run')}; somite runs lists all")
    pair = comparable(runs)
    if pair:
        parts.append(
            f"Evaluated on the same cases, side by side in one page:\n  somite report {' '.join(quoted(run) for run in pair)}{trusting(*pair)}"
        )
    return "\n\n".join([*parts, END])


def told(run: RunFolder) -> str:
    lines = [headed(run)]
    if run.state == BROKEN:
        return "\n".join([*lines, f"  broken: {run.fault}"])
    lines += [f"  {steps(run)}"]
    if run.state in (BEGUN, HALFWAY):
        lines += [f"  evaluated as it was then: {score(run.score)}"] if run.score else []
    else:
        lines.append(f"  {'not evaluated' if run.state != EVALUATED else f'evaluated: {score(run.score)}'}")
        if run.task in CALIBRATED:
            lines.append(f"  calibrated: {', '.join(run.calibrated)}" if run.calibrated else "  not calibrated")
    return "\n".join([*lines, f"  next: {following(run)}"])


def headed(run: RunFolder) -> str:
    about = ", ".join(part for part in (run.recipe, run.data and f"on {run.data}") if part)
    return f"{run.path}  ({about})" if about else str(run.path)


def steps(run: RunFolder) -> str:
    if run.state == IMPORTED:
        return "weights from elsewhere"
    planned = "" if run.planned is None else f" of {run.planned:,}"
    if run.state == BEGUN:
        return f"begun: nothing trained yet{planned and f'{planned} steps'}"
    if run.state == HALFWAY:
        # No file says whether a process is at it.
        return f"stopped half way, unless it is being trained now: {run.done or 0:,}{planned} steps"
    return f"trained: {run.done or 0:,}{planned} steps"


def score(found: Score | None) -> str:
    if found is None:
        return "as a set, which has no score of cases"
    return f"{found.metric} {scored(found)}, {found.split} split, {count(found.cases, 'row')}"


def beginning(summary: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """What trains on a data set that the doctor found good, by his summary; nothing where its masks are no example for a recipe."""
    deep, many = bool(summary["spacing_mm"]), len(summary["classes"]) > 1
    if not summary["masks"] or (overrides and (deep or many)):
        return ""
    if deep or many:
        labels = ["--labels", *map(str, summary["labels"])] if many and summary["labels"] else []
        plan = shlex.join(["somite", "plan", summary["root"], *(["--dims", "3"] if deep else []), *labels, "--out", "plan.yaml"])
        return f"{plan}, which writes a recipe for {'volumes' if deep else 'these classes'}; then train that"
    data = shlex.join([f"--data.root={summary['root']}", *overrides])
    return f"somite train medsegdiffnca/small {data} --out runs/mine (or another of `somite recipes`)"


def following(run: RunFolder) -> str:
    """The next command; a folder's recipe goes on with the run in it."""
    name, trust = quoted(run), trusting(run)
    if run.state in (BEGUN, HALFWAY):
        return f"somite train {shlex.quote(str(run.path / 'recipe.yaml'))} --out {name}"
    if run.state == IMPORTED:
        return (USES["Synthesis"] if run.task == "Synthesis" else PREDICT).format(run=name, trust=trust)
    if run.state != EVALUATED:
        return f"somite evaluate {name}{trust}"
    if run.task in CALIBRATED and not run.calibrated:
        return f"somite calibrate {name}{trust}"
    if run.task in USES:
        return USES[run.task].format(run=name, trust=trust)
    # A threshold and a quality are taken unasked, and may have been chosen without a temperature.
    return PREDICT.format(run=name, trust=f"{' --calibrated' if run.calibrated == ('temperature',) else ''}{trust}")


def trusting(*runs: RunFolder) -> str:
    return " --trust" if any(run.foreign for run in runs) else ""


def quoted(run: RunFolder) -> str:
    return shlex.quote(str(run.path))


def comparable(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs, four at most, of the set of cases on which most were evaluated; none where none shares its cases."""
    sets: dict[tuple[str, ...], list[RunFolder]] = {}
    for run in runs:
        # `somite report` reads the evaluation of the test split, which is the run folder's own.
        if run.score is not None and run.score.digest and run.score.split == "test":
            sets.setdefault(data_key(run.score), []).append(run)
    most = max(sets.values(), key=len, default=[])
    return most[:4] if len(most) > 1 else []
