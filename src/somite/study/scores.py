"""What a study asks of any run: the task's own scores of all test cases, sampled in one way or in several; and images drawn into a folder."""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.images import read_image
from ..evaluation import Row
from ..generation import generate
from ..metrics.generation import kid_weighted
from ..pipeline import Run
from ..tasks.synthesis import Made, Synthesis
from ..tasks.synthesis.extractors import features_of
from ..tasks.synthesis.sets import GENERATED, REAL, Some
from .jobs import ROWS, Asks, Keys, keyed
from .wholes import Measure, Rows

FEATURES = "features"  # the table of what real and generated images look like to an extractor


@dataclass(frozen=True)
class Way:
    """A cell of its own, by the first two of its keys (None: the job's), and how the run is sampled for it: `options` as `Run.at` takes them."""

    cell: tuple[str, str] | None = None
    options: tuple[tuple[str, Any], ...] = ()


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
            here = run.at(self.members, **dict(way.options))
            named = keys if way.cell is None else {**keys, first: way.cell[0], second: way.cell[1]}
            for case in here.recipe.data.cases("test"):
                scored = here.recipe.task.score(here.answer(case, keep=True))
                for name, rows in ((ROWS, scored.rows), *scored.tables.items()):
                    found[name] += keyed({**named, "members": self.members}, rows)
        return dict(found)


@dataclass(frozen=True)
class Draws(Asks):
    """The run draws images into `out`, `ratio` for each of its training cases, for their labels one after the other. What they look like to
    `extractor` beside the test cases is the table FEATURES: as many of them as there are test cases, one in the row of each.
    """

    out: Path
    ratio: float
    extractor: str

    def tables(self, run: Run, keys: Keys) -> dict[str, list[Row]]:
        data, task = run.recipe.data, run.at(extractor=self.extractor).recipe.task
        assert isinstance(task, Synthesis)
        cases, test = data.cases("train"), data.cases("test")
        count = math.ceil(self.ratio * len(cases))
        labels = torch.tensor([cases[index % len(cases)].labels for index in range(count)])
        paths = generate(run, self.out, count, labels, data.source.classes)[: len(test)]
        found, looking = [], task.extractor.module
        for case, path in zip(test, paths, strict=False):  # a small training set may give fewer
            record = data.read(case)
            real, image = data.preprocess.image(record), torch.from_numpy(read_image(path))[None]
            looks = features_of(looking, real, 1), features_of(looking, image, 1)
            found += task.score(Made(record, real[0], image, looks)).tables[FEATURES]
        return {ROWS: [], FEATURES: keyed(keys, found)}


def kid_of(rows: Rows) -> tuple[dict[str, Measure], list[str]]:
    """{"kid": KID as a function of weights of the cases} from one run's table of features, with the groups of the cases."""
    groups = {str(row["case"]): str(row["group"]) for row in rows}
    real, made = (Some.of(rows, kind, [*groups]).features for kind in (REAL, GENERATED))
    weighted = kid_weighted(real, made) if np.isfinite(made).all() else lambda w: np.full(len(w), np.inf)
    return {"kid": weighted}, list(groups.values())
