"""A task is a question asked of cases: what the target is, what the condition, how an answer is drawn, scored and shown.

Training, resuming, evaluation, reports and studies are the same for all tasks and know none of their words.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..data.dataset import Data
from ..data.record import Case, Record
from ..diffusion.codec import Codec
from ..diffusion.methods import Method
from ..predict.ensemble import Model
from ..sampling import Sampling
from ..types import Cond, Sample, Shape
from .view import Found, Pictures, Section, View

PLACES = ("coordinates", "body")  # entries of a sample that say where its voxels lie, where the data are told to bring them
Answer = Any  # what a task makes of one case; the task alone looks into it
Row = dict[str, Any]  # one case (and label): {"case", "group", ..., metric: value, ...}


@dataclass
class Scored:
    """What one case contributes to an evaluation; nothing is averaged before the tables. Each of `tables` becomes a CSV file."""

    rows: list[Row]
    tables: dict[str, list[Row]] = field(default_factory=dict)


@dataclass
class Glimpse:
    """A quick look at one case during training, at the network's resolution."""

    case: str
    score: float  # what early stopping and the best weights follow: larger is better
    panels: dict[str, Tensor]  # named pictures, (h, w) or (c, h, w)


@dataclass(frozen=True)
class Variation:
    """Another sampling that an evaluation takes beside its own, for a curve over `axis`; `options` as `Run.at` takes them."""

    axis: str
    at: int
    options: dict[str, Any]


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Beside:
    """What an evaluation can be held against, beside its own answers.

    cases: that were evaluated. trained: the data that the run was trained on, which may be gone. keep: `keep(name, make)` gives the
    arrays of `make()`, and those that were made before where the evaluation was stopped; what they depend on beside the run's answers
    and the task's settings has to be in the name. progress: wraps what takes long.
    """

    cases: Sequence[Case]
    trained: Data
    keep: Callable[[str, Callable[[], Arrays]], Arrays]
    progress: Callable[[Iterable[Any]], Iterable[Any]]


class Opened(Protocol):
    """The run that a report is of, as far as a task may ask it."""

    @property
    def method(self) -> Method: ...
    @property
    def data(self) -> Data: ...
    @property
    def trained_on(self) -> Data: ...
    @property
    def sampling(self) -> Sampling: ...
    def at(self, members: int | None = None, seed: int | None = None, **options: Any) -> "Opened": ...  # noqa: ANN401


class Task(ABC):
    """needs: what a case must have, of "image", "mask" and "labels"; given: what of it an answer may be made from. score_name: of the score
    that training follows. keys: the columns of rows that are no metrics. saves: the files that `write` knows, those by default first.
    kept: those of them that an evaluation writes of each answer, because its report shows many.
    """

    needs: frozenset[str] = frozenset({"image"})
    given: frozenset[str] = frozenset({"image"})
    score_name: str = "score"
    keys: tuple[str, ...] = ("case", "group")
    saves: tuple[str, ...] = ()
    by_default: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()  # of an answer, what a user of Python begins with
    members: int = 1  # samples a case, where nothing else is asked for

    def settings(self) -> dict[str, Any]:
        """What a reader must know of how it scores: whatever the metrics depend on."""
        return {}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        """Raises InputError for what would otherwise fail hours into a training. `samples` are read as they are asked for, all cases
        for training and then for validation: a task takes every one, so that no file is met later for the first time.
        """
        for _ in samples:
            pass

    def split(self, sample: Sample) -> tuple[Tensor, Cond]:
        """Which entry of a batch is the target, in data space, and which are the condition."""
        return self.target(sample), self.cond(sample)

    @abstractmethod
    def target(self, sample: Sample) -> Tensor: ...

    @abstractmethod
    def cond(self, sample: Sample) -> Cond:
        """The condition, in training and for answers alike."""

    @abstractmethod
    def shape(self, sample: Sample) -> Shape:
        """The shape in data space of the targets of a sample that may lack them."""

    @abstractmethod
    def glimpse(self, method: Method, sample: Sample, case: str) -> Glimpse:
        """Score one validation case (its n slices) by sampling it."""

    def diagnose(self, glimpses: Sequence[Glimpse]) -> str | None:
        """What is wrong with these samples, in words; None if nothing is."""
        return None

    @abstractmethod
    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Answer:
        """What the models (one, or the folds) make of one case: the only place that samples. keep: all members too."""

    @abstractmethod
    def score(self, answer: Answer) -> Scored:
        """All metrics of one answered case whose truth is known."""

    def variations(self, method: Method) -> Sequence[Variation]:
        return ()

    def point(self, answer: Answer, variation: Variation) -> Row:
        """The row of the table "curves" that a variation gives: {"case", "group", "axis", "at", value}."""
        raise TypeError(f"{type(self).__name__} names variations but no point of a curve")

    def stratified(self, rows: list[Row]) -> list[Row]:
        """The rows of the whole set, with columns that tell its parts apart."""
        return rows

    def compared(self, tables: dict[str, list[Row]], beside: Beside) -> dict[str, list[Row]]:
        """Further tables, made once from those of all answers and what lies beside them."""
        return {}

    def conclude(self, rows: Sequence[Row], tables: dict[str, list[Row]]) -> dict[str, Any]:
        """What the whole set says beyond the means of its rows: further entries of metrics.json."""
        return {}

    def admit(self, case: Case, kinds: Collection[str]) -> None:
        """Raises InputError for a case of which there can be no files of these kinds: asked for all cases before the first is answered."""
        return

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        """What `write` calls its files, without their suffix."""
        return []

    def write(self, answer: Answer, out: Path, kinds: Collection[str]) -> list[Path]:
        """The answer as files of these kinds, each written whole or not at all."""
        raise TypeError(f"{type(self).__name__} writes no files")

    def gather(self, out: Path) -> list[Path]:
        """Files of what all answers that `write` has put into a folder make together: asked for last, and again when more were added."""
        return []

    def probabilities(self, answer: Answer) -> tuple[np.ndarray, np.ndarray] | None:
        """Probabilities (k, *s) and the true labels (*s) that a temperature can be fitted to, 0 and 1 where k is 1; None for no such."""
        return None

    def risks(self, answer: Answer) -> dict[str, np.ndarray] | None:
        """The losses of an answer against its truth at every threshold, by name, as `metrics.risk` has them; None where no threshold makes
        the answer.
        """
        return None

    def goodness(self, answer: Answer) -> float | None:
        """The score of an answer against its truth, in [0, 1], larger is better, that its quality is to foretell; None for no such."""
        return None

    def sureness(self, answer: Answer) -> dict[str, float]:
        """Signs of how good an answer is that need no truth, by name, larger is better."""
        return {}

    def likeness(self, answer: Answer, other: Answer) -> float:
        """How alike two answers of one case are, in [0, 1], by the same measure as `goodness`."""
        raise TypeError(f"{type(self).__name__} does not compare answers")

    @abstractmethod
    def view(self, found: Found) -> View:
        """What the numbers of an evaluation mean, and which of them leads."""

    def sections(self, found: Found) -> list[Section]:
        """Figures for the report, with what is to be said of them."""
        return []

    def beside(self, found: Mapping[str, Found]) -> list[Section]:
        """Figures of several runs on the same cases, by their names, for a report of them all."""
        return []

    def drawn(self, found: Found, run: Opened) -> list[Section]:
        """Further figures for the report, for which the run is asked again or files of the evaluation are opened."""
        return []

    def pictures(self, answers: Sequence[Answer], rows: Sequence[Sequence[Row]], data: Data) -> Pictures | None:
        """How some cases look, each with its rows as they were scored; None where there is nothing to see."""
        return None
