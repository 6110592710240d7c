"""From an ensemble's members to one probability map. A member is a map of probabilities (k, *s) in [0, 1].

Members are handed over one by one, so that an ensemble of any size needs the memory of a few maps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np

Map = np.ndarray  # (k, *s) float32


class Tally(ABC):
    """A fusion under way."""

    @abstractmethod
    def add(self, member: Map) -> None: ...

    @abstractmethod
    def value(self) -> Map:
        """(k, *s), of the members so far."""


class Fusion(ABC):
    """`local`: each pixel is fused by itself, so that a volume may be fused slab by slab."""

    local: bool = True

    @abstractmethod
    def start(self) -> Tally: ...

    def decide(self, probability: Map) -> np.ndarray:
        """The mask of what was fused, (k, *s) -> label indices (*s) uint8: `decide`, unless a fusion says otherwise."""
        return decide(probability)

    def __call__(self, members: Iterable[Map]) -> Map:
        """All members at once: an array (m, k, *s) or anything that yields (k, *s)."""
        tally = self.start()
        for member in members:
            tally.add(member)
        return tally.value()


class Average(Tally):
    """The running mean of `of` each member; `then` is done to the mean."""

    def __init__(self, of: Callable[[Map], Map] = np.asarray, then: Callable[[Map], Map] = np.asarray) -> None:
        self.of, self.then, self.count = of, then, 0
        self.total = np.zeros(())

    def add(self, member: Map) -> None:
        one = self.of(member)
        self.total = one.copy() if self.count == 0 else np.add(self.total, one, out=self.total)
        self.count += 1

    def value(self) -> Map:
        return self.then(self.total / np.float32(self.count))


class Mean(Fusion):
    """The mean probability: the default, and what calibration is measured on."""

    def start(self) -> Tally:
        return Average()


class Majority(Fusion):
    """The share of members that vote for a label: each member is first made a mask."""

    def start(self) -> Tally:
        return Average(of=lambda member: vote(member).astype(np.float32))


class MeanSquared(Fusion):
    """The square of the mean: what the function named `staple` of the official MedSegDiff code computes. It is not STAPLE."""

    def start(self) -> Tally:
        return Average(then=np.square)


def vote(member: Map) -> np.ndarray:
    """A member as a mask: probability >= 0.5 of one channel, the most probable of several. (k, *s) bool."""
    return votes(member[None])[0]


def votes(members: np.ndarray) -> np.ndarray:
    """The same of many: (m, k, *s) bool."""
    if members.shape[1] == 1:
        return members >= 0.5
    return np.arange(members.shape[1]).reshape(1, -1, *[1] * (members.ndim - 2)) == members.argmax(1, keepdims=True)


def decide(probability: np.ndarray) -> np.ndarray:
    """(k, *s) -> label indices (*s) uint8: p >= 0.5 for one channel, the most probable for several."""
    return (probability[0] >= 0.5).astype(np.uint8) if len(probability) == 1 else probability.argmax(0).astype(np.uint8)
