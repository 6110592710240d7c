"""Which timesteps are trained: t ~ p(t) over 0 .. T-1."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .. import rng


class TimestepDistribution(ABC):
    @abstractmethod
    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        """`count` timesteps of 0 .. total-1, (count,) int64."""


class Uniform(TimestepDistribution):
    """All timesteps alike (Ho et al. 2020)."""

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        return (rng.uniform((count,), device) * total).long().clamp(max=total - 1)


class Terminal(TimestepDistribution):
    """A share `rate` of the examples at T-1, where one-step inference starts, and the rest uniform.

    At T-1 an x0 predictor learns the posterior mean, that is, feed-forward segmentation: this share is what makes one
    step as good as many.
    """

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = rate

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        t = Uniform().draw(count, total, device)
        last = rng.uniform((count,), device) < self.rate
        return torch.where(last, total - 1, t)
