"""One job of a study: train a recipe, evaluate it in every wanted way, write its rows. Killed anywhere, it goes on when run again."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import pipeline
from ..analysis.calibration import fusion_of
from ..analysis.measured import IMAGE, Measured
from ..analysis.timesteps import losses
from ..diffusion.methods import Diffusion
from ..errors import InputError
from ..evaluation import Row, read_rows, write_rows
from ..files import write_text
from ..pipeline import Run
from ..predict.temperature import Tempered, fit
from ..recipe import parse
from ..tasks.task import Scored
from ..trainer.run import train

RAW, TEMPERATURE = "raw", "temperature"
# metrics by case, reliability of all pixels by case, pixels by the members' votes (both of raw probabilities), losses by timestep
TABLES = ROWS, BINS, VOTES, LOSSES = "rows", "reliability", "votes", "timesteps"


@dataclass(frozen=True)
class Answer:
    """One of a network's answers, evaluated with these numbers of members; steps: None takes the recipe's. cell: the first two keys of its
    rows, where it is a cell of its own.
    """

    readout: str
    members: tuple[int, ...]
    steps: int | None = None
    cell: tuple[str, str] | None = None


@dataclass(frozen=True)
class Job:
    """`keys` name the cell of the grid and become columns of every row, the first two of them a network and its method, or an option and
    its choice; `recipe` is YAML.

    `answers`: what is evaluated; all but "sample" are added to the second key. `timesteps`: at how many timesteps to
    measure the loss, 0 for methods that have none.
    """

    folder: Path
    keys: tuple[tuple[str, str | int], ...]
    recipe: str
    answers: tuple[Answer, ...]
    timesteps: int = 0
    threads: int = 1

    def table(self, name: str) -> Path:
        """One of TABLES, for this job alone. "rows" is written last: where it is, the job is done."""
        return self.folder / f"study-{name}.csv"


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
    keys = dict(job.keys)
    first, second, *_ = keys
    train(parse(source), job.folder, str(keys[first]))
    run = pipeline.load(job.folder)
    if job.timesteps:
        write_rows(job.table(LOSSES), [{**keys, **row} for row in loss_curve(run, job.timesteps)])
    tables: dict[str, list[Row]] = {VOTES: [], BINS: [], ROWS: []}
    for answer in job.answers:
        named = answer.cell or (keys[first], keys[second] if answer.readout == "sample" else f"{keys[second]}/{answer.readout}")
        steps = {} if answer.steps is None else {"steps": answer.steps}
        for scored in evaluated(run.at(max(answer.members), readout=answer.readout, **steps), sorted(answer.members)):
            for name, found in ((ROWS, scored.rows), *scored.tables.items()):
                tables[name] += keyed({**keys, first: named[0], second: named[1]}, found)
    for name, found in tables.items():
        write_rows(job.table(name), found)
    return job.folder


def done(job: Job) -> bool:
    """Whether this very job has been done. Raises InputError where its folder holds another one's rows."""
    source = job.folder / "job.yaml"
    if source.exists() and source.read_text(encoding="utf-8") != job.recipe:
        raise InputError(f"{job.folder} holds a job of another study (data, budget or version differ); choose another --out")
    return job.table(ROWS).exists()


def collected(jobs: Sequence[Job], name: str) -> list[Row]:
    """One of TABLES of all jobs that have it, each job once, however often it was started."""
    return [row for job in jobs if job.table(name).exists() for row in read_rows(job.table(name))]


def loss_curve(run: Run, count: int) -> list[Row]:
    """The loss of each test case, with its image, at `count` timesteps: two draws of noise."""
    data, task = run.recipe.data, run.recipe.task
    measured = Measured(task, data, data.cases("test"))
    method = run.method
    assert isinstance(method, Diffusion)  # no other cell of a grid asks for timesteps
    return losses(method, measured, count, draws=2, conditions=(IMAGE,))


def evaluated(run: Run, members: Sequence[int]) -> Iterator[Scored]:
    """Each test case with each number of members, raw and at the temperature fitted on validation for that number; only raw
    ones bring the bins of all pixels, and the votes. Members are fused as the recipe says.
    """
    fusion, task = fusion_of(run), run.recipe.task
    temperatures = {count: fit(pairs) for count, pairs in validation(run, members).items()}
    for case in run.recipe.data.cases("test"):
        whole = run.answer(case, keep=True)
        for count in members:
            for scaling, fused in ((RAW, fusion), (TEMPERATURE, Tempered(temperatures[count], fusion))):
                told = {"members": count, "evaluations": count * run.method.steps, "scaling": scaling}
                scored = task.score(whole.first(count, fused))
                bins = [row for row in scored.tables[BINS] if row["region"] == "all"]
                tables = {BINS: bins, VOTES: scored.tables[VOTES]} if scaling == RAW else {}
                yield Scored(keyed(told, scored.rows), {name: keyed(told, some) for name, some in tables.items()})


def keyed(keys: Row, rows: Sequence[Row]) -> list[Row]:
    return [{**keys, **row} for row in rows]


def validation(run: Run, members: Sequence[int]) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Probabilities and labels of the validation cases by number of members."""
    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {count: [] for count in members}
    for case in run.recipe.data.cases("val"):
        result = run.answer(case, keep=True)
        for count in members:
            pairs[count].append((result.first(count, fusion_of(run)).probability, result.record.truth))
    return pairs
