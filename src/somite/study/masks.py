"""What a study asks of a segmentation: masks of few and of many members, raw and at a fitted temperature, and the loss over t."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..analysis.calibration import fusion_of
from ..analysis.measured import IMAGE, Measured
from ..analysis.timesteps import losses
from ..diffusion.methods import Diffusion
from ..evaluation import Row
from ..pipeline import Run
from ..predict.temperature import Tempered, fit
from ..tasks.task import Scored
from .jobs import ROWS, Asks, Keys, keyed

RAW, TEMPERATURE = "raw", "temperature"
# reliability of all pixels by case, pixels by the members' votes (both of raw probabilities), losses by timestep
BINS, VOTES, LOSSES = "reliability", "votes", "timesteps"


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
class Masks(Asks):
    """answers: what is evaluated; all but "sample" are added to the second key. timesteps: at how many timesteps to measure the loss, 0
    for methods that have none.
    """

    answers: tuple[Answer, ...]
    timesteps: int = 0

    def tables(self, run: Run, keys: Keys) -> dict[str, list[Row]]:
        first, second, *_ = keys
        found: dict[str, list[Row]] = {VOTES: [], BINS: [], ROWS: []}
        if self.timesteps:
            found[LOSSES] = keyed(keys, loss_curve(run, self.timesteps))
        for answer in self.answers:
            named = answer.cell or (keys[first], keys[second] if answer.readout == "sample" else f"{keys[second]}/{answer.readout}")
            steps = {} if answer.steps is None else {"steps": answer.steps}
            for scored in evaluated(run.at(max(answer.members), readout=answer.readout, **steps), sorted(answer.members)):
                for name, rows in ((ROWS, scored.rows), *scored.tables.items()):
                    found[name] += keyed({**keys, first: named[0], second: named[1]}, rows)
        return found


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


def validation(run: Run, members: Sequence[int]) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Probabilities and labels of the validation cases by number of members."""
    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {count: [] for count in members}
    for case in run.recipe.data.cases("val"):
        result = run.answer(case, keep=True)
        for count in members:
            pairs[count].append((result.first(count, fusion_of(run)).probability, result.record.truth))
    return pairs
