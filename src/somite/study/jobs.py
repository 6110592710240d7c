"""One job of a study: train a recipe, evaluate it in every wanted way, write its rows. Killed anywhere, it goes on when run again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import pipeline
from ..errors import InputError
from ..evaluation import Row, read_rows, write_rows
from ..files import write_text
from ..pipeline import Run
from ..predict.ensemble import Result
from ..predict.fusion import Mean, decide
from ..predict.temperature import fit, scaled
from ..recipe import parse
from ..train.run import train

RAW, TEMPERATURE = "raw", "temperature"


@dataclass(frozen=True)
class Job:
    """`keys` name the cell of the grid and become columns of every row; `recipe` is YAML; members are evaluated by their counts."""

    folder: Path
    keys: tuple[tuple[str, str | int], ...]
    recipe: str
    members: tuple[int, ...]
    threads: int = 1

    @property
    def rows(self) -> Path:
        return self.folder / "study-rows.csv"


def work(job: Job) -> Path:
    """Train and evaluate one job; returns its rows' file, which is written last and whole. Done jobs return at once."""
    if done(job):
        return job.rows
    torch.set_num_threads(job.threads)
    source = job.folder / "job.yaml"
    write_text(source, job.recipe)
    train(parse(source), job.folder, str(dict(job.keys)["network"]))
    run = pipeline.load(job.folder)
    keys = dict(job.keys)
    rows = [{**keys, **row} for row in evaluated(run, sorted(job.members))]
    write_rows(job.rows, rows)
    return job.rows


def done(job: Job) -> bool:
    """Whether this very job has been done. Raises InputError where its folder holds another one's rows."""
    source = job.folder / "job.yaml"
    if source.exists() and source.read_text(encoding="utf-8") != job.recipe:
        raise InputError(f"{job.folder} holds a job of another study (data, budget or version differ); choose another --out")
    return job.rows.exists()


def collect(jobs: Sequence[Job]) -> list[Row]:
    """The rows of all jobs, each job once, however often it was started."""
    return [row for job in jobs for row in read_rows(job.rows)]


def evaluated(run: Run, members: Sequence[int]) -> Iterator[Row]:
    """Rows of the test cases for each number of members, raw and at the temperature fitted on validation for that number."""
    temperatures = {count: fit(pairs) for count, pairs in validation(run, members).items()}
    data, task = run.recipe.data, run.recipe.task
    for case in data.cases("test"):
        whole = task.predict(run.method, data.preprocess, data.read(case), 0, members[-1])
        for count in members:
            fused = Mean()(whole.members[:count])
            for scaling, probability in ((RAW, fused), (TEMPERATURE, scaled(fused, temperatures[count]))):
                result = Result(whole.record, decide(fused), probability, whole.members[:count].std(0), whole.members[:count])
                told = {"members": count, "evaluations": count * run.method.steps, "scaling": scaling}
                yield from ({**told, **row} for row in task.score(result).rows)


def validation(run: Run, members: Sequence[int]) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Probabilities and labels of the validation cases by number of members."""
    data, task = run.recipe.data, run.recipe.task
    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {count: [] for count in members}
    for case in data.cases("val"):
        record = data.read(case)
        assert record.labels is not None  # the cases of a split are labelled
        found = task.predict(run.method, data.preprocess, record, 0, members[-1]).members
        for count in members:
            pairs[count].append((Mean()(found[:count]), record.labels))
    return pairs
