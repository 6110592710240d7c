"""What is known of one classified case."""

from dataclasses import dataclass

import numpy as np

from ...data.record import Record
from ...errors import InputError
from ...predict.fusion import Fusion

Map = np.ndarray


@dataclass
class Classified:
    """exclusive: one class a case; else any number of labels."""

    record: Record
    probability: np.ndarray  # (k,) float32
    members: np.ndarray  # (m, k) float32
    exclusive: bool

    @classmethod
    def fused(cls, record: Record, members: np.ndarray, fusion: Fusion, exclusive: bool) -> "Classified":
        return cls(record, fusion(as_maps(members, exclusive)).reshape(-1), members, exclusive)

    @property
    def names(self) -> tuple[str, ...]:
        return self.record.classes or tuple(str(index) for index in range(len(self.probability)))

    @property
    def answer(self) -> list[str]:
        """The most probable class, or the labels at p >= 0.5."""
        chosen = [int(self.probability.argmax())] if self.exclusive else np.flatnonzero(self.probability >= 0.5)
        return [self.names[index] for index in chosen]

    @property
    def spread(self) -> np.ndarray:
        """(k,) standard deviation over the members."""
        return self.members.std(0)

    @property
    def truth(self) -> np.ndarray:
        """(k,) of 0 and 1. Raises InputError for a case without labels."""
        if self.record.case.labels is None:
            raise InputError(f"{self.record.case.id} has no labels, and evaluation needs them; add them, or leave it out of the splits")
        return np.array(self.record.case.labels)

    @property
    def maps(self) -> np.ndarray:
        """The probabilities as fusions and temperatures have them."""
        return as_maps(self.probability[None], self.exclusive)[0]

    @property
    def truths(self) -> np.ndarray:
        """Labels to these: the class's index (), or 0 and 1 for each label (k,)."""
        return np.array(self.truth.argmax()) if self.exclusive else self.truth.astype(np.int64)


def as_maps(members: np.ndarray, exclusive: bool) -> np.ndarray:
    """(m, k) -> (m, k) of one place and k classes, or (m, 1, k) of k places, each a label for itself: what (m, k, *s) is elsewhere."""
    return members if exclusive else members[:, None]
