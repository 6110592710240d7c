"""Running a study: what is left of its grid, then the tables, the verdict and the figure of all that is done."""

from collections.abc import Callable, Sequence

from ..analysis.figures import save
from ..engines import Engine
from ..environment import environment
from ..errors import InputError
from ..evaluation import write_rows
from . import verdict
from .jobs import Job, attempt, collected, done
from .study import Asked, Study


def run_study(study: Study, asked: Asked, engine: Engine, say: Callable[[str], None] = print) -> str:
    """Run what is left of the grid, then write a CSV for each of the jobs' tables, verdict.md and its figure into `asked.out`, from
    all jobs that are done there. Returns the claims. Raises InputError, after all that, if jobs failed.
    """
    grid = study.jobs(asked)
    left = [job for job in grid if not done(job)]
    say(f"{len(grid)} jobs, {len(grid) - len(left)} done already")
    if left:
        study.prepare(asked)
    failed, count = [], 0
    for stage in sorted({job.stage for job in left}):
        if failed:
            say("what stands on a failed job is not begun")
            break
        for outcome in engine.run(attempt, [job for job in left if job.stage == stage]):
            count += 1
            if isinstance(outcome, str):
                failed.append(outcome)
                say(f"{count} of {len(left)}: failed: {outcome}")
            else:
                say(f"{count} of {len(left)}: {outcome.name}")
    told = summarised(study, [job for job in study.whole(asked) if done(job)], asked)
    if failed:
        raise InputError(f"{len(failed)} of {len(left)} jobs failed, run again to try them once more; the first was {failed[0]}")
    return told


def summarised(study: Study, jobs: Sequence[Job], asked: Asked) -> str:
    """The tables, the verdict and the figure of these jobs; returns the claims of the first list."""
    if not jobs:
        return ""
    tables = {name: collected(jobs, name) for name in dict.fromkeys(name for job in jobs for name in job.names())}
    for name, rows in tables.items():
        if rows:
            write_rows(asked.out / f"{name}.csv", rows)
    made = study.figure(tables)
    if made is not None:
        save(made, asked.out, "figure")
    about = environment()
    machine = f"{about['processor']}, torch {about['packages']['torch']}, {about['date'][:10]}"
    note = f"`{about['command']}`, budget {asked.budget}, {len(jobs)} jobs, {machine}."
    parts = [f"# {study.title}", note, *(["![Every cell with its intervals](figure.png)"] if made is not None else [])]
    return verdict.write(asked.out / "verdict.md", [*parts, *study.told(tables)], study.claims(tables), study.rule)
