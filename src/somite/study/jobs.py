"""One job of a study: train a recipe, ask of the run what the study wants to know, write the rows. Killed anywhere, it goes on when run
again.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import pipeline
from ..errors import InputError
from ..evaluation import Row, read_rows, write_rows
from ..files import write_text
from ..pipeline import Run
from ..recipe import parse
from ..trainer.run import train

ROWS = "rows"  # the table that every job has: metrics by case
Keys = dict[str, str | int]


class Asks(ABC):
    """What a job asks of a trained run. Small frozen classes, since jobs travel to other machines."""

    @abstractmethod
    def tables(self, run: Run, keys: Keys) -> dict[str, list[Row]]:
        """Rows by the table's name, ROWS among them. `keys` are columns of every row, the cell's own values in their place where one run
        answers for several cells.
        """


@dataclass(frozen=True)
class Job:
    """`keys` name the cell of the grid and become columns of every row, the first two of them a network and its method, or an option and
    its choice; `recipe` is YAML. stage: jobs stand on those of the stages before, which have ended when they begin.
    """

    folder: Path
    keys: tuple[tuple[str, str | int], ...]
    recipe: str
    asks: Asks
    threads: int = 1
    stage: int = 0

    def table(self, name: str) -> Path:
        """One table, for this job alone. ROWS is written last: where it is, the job is done."""
        return self.folder / f"study-{name}.csv"

    def names(self) -> list[str]:
        """The tables that are there."""
        return sorted(path.stem.removeprefix("study-") for path in self.folder.glob("study-*.csv"))


def attempt(job: Job) -> Path | str:
    """`work`, or what went wrong with it: one bad job does not stop a study. The traceback stays in its folder."""
    report = job.folder / "error.txt"
    try:
        folder = work(job)
    except Exception as error:  # whatever it was: the other jobs go on, and the study says it
        write_text(report, traceback.format_exc())
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}; see {report}"
        return f"{job.folder.name}: {said}"
    report.unlink(missing_ok=True)
    return folder


def work(job: Job) -> Path:
    """Train and evaluate one job; returns its folder. Done jobs return at once."""
    if done(job):
        return job.folder
    torch.set_num_threads(job.threads)
    source = job.folder / "job.yaml"
    write_text(source, job.recipe)
    train(parse(source), job.folder, str(job.keys[0][1]))
    found = job.asks.tables(pipeline.load(job.folder), dict(job.keys))
    for name in sorted(found, key=lambda name: name == ROWS):
        write_rows(job.table(name), found[name])
    return job.folder


def done(job: Job) -> bool:
    """Whether this very job has been done. Raises InputError where its folder holds another one's rows."""
    source = job.folder / "job.yaml"
    if source.exists() and source.read_text(encoding="utf-8") != job.recipe:
        raise InputError(f"{job.folder} holds a job of another study (data, budget or version differ); choose another --out")
    return job.table(ROWS).exists()


def collected(jobs: Sequence[Job], name: str) -> list[Row]:
    """One table of all jobs that have it, each job once, however often it was started."""
    return [row for job in jobs if job.table(name).exists() for row in read_rows(job.table(name))]


def keyed(keys: Row, rows: Sequence[Row]) -> list[Row]:
    return [{**keys, **row} for row in rows]
