"""From an ensemble's members to one probability map. Members are probabilities (m, k, *s) in [0, 1]."""

from abc import ABC, abstractmethod

import numpy as np


class Fusion(ABC):
    @abstractmethod
    def __call__(self, members: np.ndarray) -> np.ndarray:
        """(m, k, *s) -> (k, *s)"""


class Mean(Fusion):
    """The mean probability: the default, and what calibration is measured on."""

    def __call__(self, members: np.ndarray) -> np.ndarray:
        return members.mean(0)


class Majority(Fusion):
    """The share of members that vote for a label: each member is first made a mask."""

    def __call__(self, members: np.ndarray) -> np.ndarray:
        return votes(members).mean(0, dtype=np.float32)


class MeanSquared(Fusion):
    """The square of the mean: what the function named `staple` of the official MedSegDiff code computes. It is not STAPLE."""

    def __call__(self, members: np.ndarray) -> np.ndarray:
        return members.mean(0) ** 2


def votes(members: np.ndarray) -> np.ndarray:
    """Each member as a mask: probability >= 0.5 of one channel, the most probable of several. (m, k, *s) bool."""
    if members.shape[1] == 1:
        return members >= 0.5
    return np.arange(members.shape[1]).reshape(1, -1, *[1] * (members.ndim - 2)) == members.argmax(1, keepdims=True)


def decide(probability: np.ndarray) -> np.ndarray:
    """(k, *s) -> label indices (*s) uint8: p >= 0.5 for one channel, the most probable for several."""
    return (probability[0] >= 0.5).astype(np.uint8) if len(probability) == 1 else probability.argmax(0).astype(np.uint8)
