"""Temperature scaling (Guo et al. 2017): one number, fitted on validation cases, that softens or sharpens probabilities.

p -> sigmoid(logit(p) / T), and for several classes p -> softmax(log(p) / T). T > 1 softens. The most probable label stays the
same, so masks do not change; calibration does. It is applied after fusion, so it fits ensembles and single networks alike.
"""

from collections.abc import Iterable

import numpy as np
from scipy.optimize import minimize_scalar

from ..errors import InputError
from .fusion import Fusion, Map, Mean, Tally

CLIP = 1e-6  # vote shares of 0 and 1 are not certainty


class Tempered(Fusion):
    """Another fusion, its result at a temperature."""

    def __init__(self, temperature: float, fusion: Fusion | None = None) -> None:
        if not temperature > 0:
            raise InputError(f"temperature {temperature}: probabilities are scaled by a number above 0; 1 changes nothing")
        self.temperature, self.fusion = temperature, fusion or Mean()
        self.local = self.fusion.local

    def start(self) -> Tally:
        return Scaled(self.fusion.start(), self.temperature)

    def decide(self, probability: Map) -> np.ndarray:
        return self.fusion.decide(probability)


class Scaled(Tally):
    def __init__(self, tally: Tally, temperature: float) -> None:
        self.tally, self.temperature = tally, temperature

    def add(self, member: Map) -> None:
        self.tally.add(member)

    def value(self) -> Map:
        return scaled(self.tally.value(), self.temperature)


def scaled(probability: np.ndarray, temperature: float) -> np.ndarray:
    """(k, *s) -> (k, *s) at this temperature."""
    p = probability.astype(np.float64).clip(CLIP, 1 - CLIP)
    if len(p) == 1:
        return (1 / (1 + np.exp(-(np.log(p) - np.log1p(-p)) / temperature))).astype(np.float32)
    powered = np.exp((np.log(p) - np.log(p).max(0, keepdims=True)) / temperature)
    return (powered / powered.sum(0, keepdims=True)).astype(np.float32)


def fit(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The temperature of least negative log-likelihood over pairs of probabilities (k, *s) and labels (*s); T in [0.05, 20]."""
    cases = [(p.astype(np.float64).clip(CLIP, 1 - CLIP), labels) for p, labels in pairs]

    def loss(log_t: float) -> float:
        total, count = 0.0, 0
        for p, labels in cases:
            q = scaled(p, np.exp(log_t)).astype(np.float64).clip(CLIP, 1 - CLIP)
            if len(q) == 1:
                total -= float(np.where(labels > 0, np.log(q[0]), np.log1p(-q[0])).sum())
            else:
                total -= float(np.log(np.take_along_axis(q, labels[None].astype(np.int64), 0)).sum())
            count += labels.size
        return total / count

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))
