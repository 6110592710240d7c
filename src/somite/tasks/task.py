"""A task says what the target is, what the condition, and how a prediction is scored."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..data.dataset import Data
from ..data.preprocess import Preprocess
from ..data.record import Case, Record
from ..diffusion.methods import Method
from ..predict.ensemble import Result
from ..predict.fusion import Fusion
from ..types import Cond, Sample

Row = dict[str, Any]  # one case (and label): {"case", "group", "label", metric: value, ...}


@dataclass
class Scored:
    """What one case contributes to an evaluation; nothing is averaged before the tables."""

    rows: list[Row]
    bins: list[Row] = field(default_factory=list)  # reliability, one row a bin: {"case", "region", "bin", "count", ...}
    votes: list[Row] = field(default_factory=list)  # {"case", "votes", "pixels", "positives"}: how many pixels got so many members' votes
    curves: list[Row] = field(default_factory=list)  # {"case", "axis": "members" | "steps", "at", "dice"}


@dataclass
class Glimpse:
    """A quick look at one case during training, at the network's resolution."""

    case: str
    score: float  # what early stopping and the best checkpoint follow: larger is better
    image: Tensor  # (c, h, w) in [0, 1]
    truth: Tensor  # (h, w) labels
    mask: Tensor  # (h, w) labels
    probability: Tensor  # (h, w)


class Task(ABC):
    members: int
    fusion: Fusion
    tolerance: float  # of boundary metrics, in mm for volumes and pixels for images

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What a reader must know of how it scores: "members" and whatever the metrics depend on."""

    @abstractmethod
    def split(self, batch: Sample) -> tuple[Tensor, Cond]:
        """Which entry of a batch is the target and which are the condition."""

    @abstractmethod
    def glimpse(self, method: Method, batch: Sample, case: str) -> Glimpse:
        """Score one validation case (a batch of its slices) by sampling it."""

    @abstractmethod
    def predict(self, method: Method, preprocess: Preprocess, record: Record, seed: int, members: int | None = None) -> Result:
        """What the method makes of one case, in the case's own geometry; `members` of an ensemble, or the task's own number."""

    @abstractmethod
    def score(self, result: Result) -> Scored:
        """All metrics of one predicted, labelled case."""

    @abstractmethod
    def evaluate(self, method: Method, data: Data, cases: Iterable[Case], seed: int) -> Iterator[Scored]:
        """Score cases at their native resolution."""
