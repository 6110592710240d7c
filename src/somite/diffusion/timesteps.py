"""Which timesteps are trained: t ~ p(t) over 0 .. T-1."""

import csv
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import rng
from ..errors import InputError


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
        if not 0 <= rate <= 1:
            raise InputError(f"the share of examples at T-1 lies in [0, 1], got {rate}; set --method.timesteps.rate 0.5")
        self.rate = rate

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        t = Uniform().draw(count, total, device)
        last = rng.uniform((count,), device) < self.rate
        return torch.where(last, total - 1, t)


class ByBenefit(TimestepDistribution):
    """t in proportion to the measured benefit of the image, and a share `floor` of the examples uniform.

    path: a CSV table with the columns t and benefit, as `somite analyse timesteps` writes; between its timesteps the benefit
    is linear, below zero it counts as zero. A run trained with it opens without the file, which only training needs.
    """

    def __init__(self, path: str, floor: float = 0.2) -> None:
        if not 0 <= floor <= 1:
            raise InputError(f"floor {floor} of ByBenefit is a share of the examples, in [0, 1]; 0.2 is usual")
        self.path, self.floor = path, floor
        self.knots = benefit_knots(path) if Path(path).is_file() else None

    def density(self, total: int) -> Tensor:
        """p(t) for t = 0 .. total-1, (total,) float64."""
        if self.knots is None:
            raise InputError(f"{self.path} is not there; `somite analyse timesteps RUN` writes it, or train with the timesteps Uniform")
        at, benefit = self.knots
        if at[-1] >= total:
            raise InputError(
                f"{self.path} was measured up to t = {at[-1]:g}, but this method has {total} timesteps; use one of the same schedule"
            )
        height = torch.as_tensor(np.interp(np.arange(total), at, np.maximum(benefit, 0)))
        if height.sum() == 0:
            raise InputError(f"{self.path} shows no benefit of the image at any timestep; train with the timesteps Uniform")
        return (1 - self.floor) * height / height.sum() + self.floor / total

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        ends = self.density(total).cumsum(0).to(device)
        u = rng.uniform((count,), device).double()
        return torch.searchsorted(ends, u * ends[-1], right=True).clamp(max=total - 1)


def benefit_knots(path: str | Path) -> tuple[list[float], list[float]]:
    """The columns t and benefit of a CSV table, by increasing t."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            pairs = sorted((float(row["t"]), float(row["benefit"])) for row in csv.DictReader(file))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} has no numbers in the columns t and benefit ({error}); take the benefit.csv of `somite analyse timesteps`"
        ) from error
    if not pairs or not np.isfinite(pairs).all() or len({t for t, _ in pairs}) < len(pairs):
        raise InputError(
            f"{path} should hold each timestep once, with a finite benefit; take the benefit.csv of `somite analyse timesteps`"
        )
    return [t for t, _ in pairs], [b for _, b in pairs]
