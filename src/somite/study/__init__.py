"""Studies: grids of independent runs that answer a paper's question, on one machine or on many."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..analysis.figures import save
from ..environment import environment
from ..evaluation import write_rows
from . import fair_trial, figures, verdict
from .engines import Engine
from .jobs import collect, curves, done, work


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
    """Run what is left of the grid, then write rows.csv, timesteps.csv, verdict.md and fair-trial.svg and .png into `out`. Returns the claims."""
    grid = fair_trial.jobs(data, out, budget, seeds, only, threads, steps)
    left = [job for job in grid if not done(job)]
    say(f"{len(grid)} jobs, {len(grid) - len(left)} done already")
    for count, rows in enumerate(engine.run(work, left), 1):
        say(f"{count} of {len(left)}: {rows.parent.name}")
    rows = collect(grid)
    write_rows(out / "rows.csv", rows)
    about = environment()
    note = f"`{about['command']}`, budget {budget}, {len(grid)} jobs, {about['processor']}, torch {about['packages']['torch']}, {about['date'][:10]}."
    losses = curves(grid)
    if losses:
        write_rows(out / "timesteps.csv", losses)
    save(figures.fair_trial(rows, losses), out, "fair-trial")
    return verdict.write_verdict(rows, losses, out, note)
