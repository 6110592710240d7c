"""What a study asks of any run: the task's own scores of all test cases, sampled in one way or in several; and images drawn into a folder."""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from ..evaluation import Row
from ..generation import generate
from ..pipeline import Run
from .jobs import ROWS, Asks, Keys, keyed


@dataclass(frozen=True)
class Way:
    """A cell of its own, by the first two of its keys (None: the job's), and how the run is sampled for it: `options` as `Run.at` takes them,
    `overrides` of the recipe.
    """

    cell: tuple[str, str] | None = None
    options: tuple[tuple[str, int | float | str], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scores(Asks):
    """The rows and tables that the task makes of the test cases, `members` samples each."""

    members: int = 1
    ways: tuple[Way, ...] = (Way(),)

    def tables(self, run: Run, keys: Keys) -> dict[str, list[Row]]:
        first, second, *_ = keys
        found: dict[str, list[Row]] = defaultdict(list)
        found[ROWS] = []
        for way in self.ways:
            here = run.at(self.members, **dict(way.options)).under(dict(way.overrides))
            named = keys if way.cell is None else {**keys, first: way.cell[0], second: way.cell[1]}
            for case in here.recipe.data.cases("test"):
                scored = here.recipe.task.score(here.answer(case, keep=True))
                for name, rows in ((ROWS, scored.rows), *scored.tables.items()):
                    found[name] += keyed({**named, "members": self.members}, rows)
        return dict(found)


@dataclass(frozen=True)
class Draws(Asks):
    """Beside its scores the run draws images into `out`, `ratio` for each of its training cases, for their labels one after the other."""

    out: Path
    ratio: float
    scores: Scores

    def tables(self, run: Run, keys: Keys) -> dict[str, list[Row]]:
        data = run.recipe.data
        cases = data.cases("train")
        count = math.ceil(self.ratio * len(cases))
        labels = torch.tensor([cases[index % len(cases)].labels for index in range(count)])
        generate(run, self.out, count, labels, data.source.classes)
        return self.scores.tables(run, keys)
