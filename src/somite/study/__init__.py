"""Studies: grids of independent runs that answer a paper's question, on one machine or on many."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..analysis.figures import save
from ..environment import environment
from ..errors import InputError
from ..evaluation import write_rows
from . import fair_trial, figures, verdict
from .engines import Engine
from .jobs import LOSSES, ROWS, TABLES, Job, attempt, collected, done


def fair_trial_study(
    data: str,
    out: Path,
    engine: Engine,
    budget: str = "cpu",
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    threads: int = 1,
    steps: int | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Run what is left of the grid, then write rows.csv, reliability.csv, votes.csv, timesteps.csv, verdict.md and its figure
    into `out`, from all jobs that are done there. Returns the claims. Raises InputError, after all that, if jobs failed.
    """
    grid = fair_trial.jobs(data, out, budget, seeds, only, threads, steps)
    left = [job for job in grid if not done(job)]
    say(f"{len(grid)} jobs, {len(grid) - len(left)} done already")
    failed = []
    for count, outcome in enumerate(engine.run(attempt, left), 1):
        if isinstance(outcome, str):
            failed.append(outcome)
            say(f"{count} of {len(left)}: failed: {outcome}")
        else:
            say(f"{count} of {len(left)}: {outcome.name}")
    told = summarised([job for job in whole_grid(data, out, budget, seeds, threads, steps) if done(job)], out, budget)
    if failed:
        raise InputError(f"{len(failed)} of {len(left)} jobs failed, run again to try them once more; the first was {failed[0]}")
    return told


def whole_grid(data: str, out: Path, budget: str, seeds: Sequence[int] | None, threads: int, steps: int | None) -> list[Job]:
    """Every cell, with the seeds that are asked for and the budget's, so that a part of a study rewrites no other part's rows."""
    every = [job for some in (None, seeds) for job in fair_trial.jobs(data, out, budget, some, (), threads, steps)]
    return list({job.folder: job for job in every}.values())


def summarised(jobs: Sequence[Job], out: Path, budget: str) -> str:
    """The tables, the verdict and the figure of these jobs; returns the claims."""
    if not jobs:
        return ""
    tables = {name: collected(jobs, name) for name in TABLES}
    for name, rows in tables.items():
        if rows:
            write_rows(out / f"{name}.csv", rows)
    save(figures.fair_trial(tables[ROWS], tables[LOSSES]), out, "fair-trial")
    about = environment()
    note = f"`{about['command']}`, budget {budget}, {len(jobs)} jobs, {about['processor']}, torch {about['packages']['torch']}, {about['date'][:10]}."
    return verdict.write_verdict(tables, out, note)
