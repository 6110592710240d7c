"""One job of a study: train a recipe, evaluate it in every wanted way, write its rows. Killed anywhere, it goes on when run again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import pipeline
from ..analysis.timesteps import IMAGE, Measured, losses
from ..diffusion.methods import Diffusion
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
    """`keys` name the cell of the grid and become columns of every row; `recipe` is YAML; members are evaluated by their counts.

    `readouts`: the network's answers to evaluate, each with its own numbers of members; all but "sample" are added to the
    method's name. `timesteps`: at how many timesteps to measure the loss, 0 for methods that have none.
    """

    folder: Path
    keys: tuple[tuple[str, str | int], ...]
    recipe: str
    readouts: tuple[tuple[str, tuple[int, ...]], ...]
    timesteps: int = 0
    threads: int = 1

    @property
    def rows(self) -> Path:
        return self.folder / "study-rows.csv"

    @property
    def curve(self) -> Path:
        return self.folder / "study-timesteps.csv"


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
    if job.timesteps:
        write_rows(job.curve, [{**keys, **row} for row in loss_curve(run, job.timesteps)])
    rows = []
    for readout, members in job.readouts:
        run.read(readout)
        method = keys["method"] if readout == "sample" else f"{keys['method']}/{readout}"
        rows += [{**keys, "method": method, **row} for row in evaluated(run, sorted(members))]
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


def curves(jobs: Sequence[Job]) -> list[Row]:
    """The losses by timestep of all jobs that have some."""
    return [row for job in jobs if job.timesteps for row in read_rows(job.curve)]


def loss_curve(run: Run, count: int) -> list[Row]:
    """The loss of each test case, with its image, at `count` timesteps: two draws of noise."""
    data, task = run.recipe.data, run.recipe.task
    measured = Measured(task, data, data.cases("test"))
    method = run.method
    assert isinstance(method, Diffusion)  # no other cell of a grid asks for timesteps
    return losses(method, measured, count, draws=2, conditions=(IMAGE,))


def evaluated(run: Run, members: Sequence[int]) -> Iterator[Row]:
    """Rows of the test cases for each number of members, raw and at the temperature fitted on validation for that number."""
    temperatures = {count: fit(pairs) for count, pairs in validation(run, members).items()}
    for case in run.recipe.data.cases("test"):
        whole = run.segment(case, members[-1])
        for count in members:
            fused = Mean()(whole.members[:count])
            for scaling, probability in ((RAW, fused), (TEMPERATURE, scaled(fused, temperatures[count]))):
                result = Result(whole.record, decide(fused), probability, whole.members[:count].std(0), whole.members[:count])
                told = {"members": count, "evaluations": count * run.method.steps, "scaling": scaling}
                yield from ({**told, **row} for row in run.recipe.task.score(result).rows)


def validation(run: Run, members: Sequence[int]) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Probabilities and labels of the validation cases by number of members."""
    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {count: [] for count in members}
    for case in run.recipe.data.cases("val"):
        result = run.segment(case, members[-1])
        for count in members:
            pairs[count].append((Mean()(result.members[:count]), result.record.truth))
    return pairs
