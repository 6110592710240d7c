"""Which timesteps are trained: t ~ p(t) over 0 .. T-1; and which few of them sampling steps through, by the image's benefit."""

import csv
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from .schedule import Schedule

Knots = tuple[list[float], list[float]]  # increasing t, and the benefit of the image there


class TimestepDistribution(ABC):
    @abstractmethod
    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        """`count` timesteps of 0 .. total-1, (count,) int64."""


class Uniform(TimestepDistribution):
    """All timesteps alike (Ho et al. 2020)."""

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        return (rng.uniform((count,), device) * total).long().clamp(max=total - 1)


class Power(TimestepDistribution):
    """t = T u^power with u uniform: powers above 1 train low noise more often, where features are read (power 2: half of the examples below T / 4)."""

    def __init__(self, power: float = 2.0) -> None:
        if not power > 0:
            raise InputError(f"--method.timesteps.power {power}: it is above 0; 1 is uniform, 2 favours low noise")
        self.power = power

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        return (rng.uniform((count,), device) ** self.power * total).long().clamp(max=total - 1)


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
        at, benefit = fitting(self.knots, total)
        height = torch.as_tensor(np.interp(np.arange(total), at, np.maximum(benefit, 0)))
        if height.sum() == 0:
            raise InputError(f"{self.path} shows no benefit of the image at any timestep; train with the timesteps Uniform")
        return (1 - self.floor) * height / height.sum() + self.floor / total

    def draw(self, count: int, total: int, device: torch.device) -> Tensor:
        ends = self.density(total).cumsum(0).to(device)
        u = rng.uniform((count,), device).double()
        return torch.searchsorted(ends, u * ends[-1], right=True).clamp(max=total - 1)


def fitting(benefit: Knots, total: int) -> Knots:
    if benefit[0][-1] >= total:
        raise InputError(
            f"the benefit was measured up to t = {benefit[0][-1]:g}, but this method has {total} timesteps; use one of the same schedule"
        )
    return benefit


def benefit_knots(path: str | Path) -> Knots:
    """The columns t and benefit of a CSV table, by increasing t."""
    if not Path(path).is_file():
        raise InputError(f"{path} is not there; `somite analyse timesteps RUN` writes benefit.csv")
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


def steps_by_benefit(benefit: Knots, schedule: Schedule, steps: int) -> list[int]:
    """`steps` decreasing timesteps, the first T-1, at equal quantiles of the cumulative benefit over log-SNR.

    With B(u) = int_{u_(T-1)}^u benefit du', step i stands where B is i / steps of the whole. A benefit below
    zero counts as zero. Steps that would coincide move to the next free timestep.
    """
    total = len(schedule)
    if not 1 <= steps <= total:
        raise InputError(f"{steps} steps asked for, but this schedule has {total} timesteps; choose 1 to {total}")
    last = max(i for i in range(total) if schedule.snr(i) > 0)
    known = np.arange(last, -1, -1)  # from the noisy end, u increases
    u = np.log([schedule.snr(int(i)) for i in known])
    height = np.maximum(np.interp(known, *fitting(benefit, total)), 0)
    area = np.concatenate([[0.0], (np.diff(u) * (height[1:] + height[:-1]) / 2).cumsum()])
    if area[-1] == 0:
        raise InputError("the image shows no benefit at any timestep; place the steps equally instead")
    rising = np.concatenate([[True], np.diff(area) > 0])
    at = np.interp(np.arange(1, steps) / steps, area[rising] / area[-1], u[rising])
    wanted = [total - 1, *np.rint(np.interp(at, u, known)).astype(int).tolist()]
    out: list[int] = []
    for i, one in enumerate(wanted):
        highest = total - 1 if i == 0 else out[-1] - 1
        out.append(max(min(one, highest), steps - 1 - i))
    return out
