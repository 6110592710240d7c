"""Samplers walk x from noise to a sample by asking a denoiser again and again.

The loop is here, once; a sampler is one formula, x_s from (x0_hat, eps_hat, x_t). Timesteps are spaced "trailing"
(Lin et al. 2024, table 2): they always start at T-1, so that one step is taken from pure noise at T-1 and never from
t = 0, the mistake that made one-step diffusion look impossible (Garcia et al., arXiv 2409.11355).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..types import Prediction, State
from .schedule import AlphaSigma, Schedule

Denoise = Callable[[Tensor, Tensor, State], Prediction]


@dataclass
class Step:
    """One point of a trajectory: the noisy x at t and what was predicted there; the last step has t = -1."""

    t: int
    x: Tensor
    pred: Prediction


Clip = float | Literal["codec"] | None
Spacing = Literal["trailing", "linspace"]


class Sampler(ABC):
    """`steps` evaluations. clip: x0_hat is kept in [-clip, clip]; "codec" takes the codec's own bound, None leaves it as it is.
    inherit_state: whether what a network hands on is given back to it at the next step.
    """

    steps: int
    clip: Clip
    inherit_state: bool
    placed: list[int] | None = None  # timesteps that were chosen one by one, where sampling takes them

    def limit(self, bound: float | None) -> float | None:
        """By what x0_hat is clipped, where `bound` is the codec's."""
        return bound if self.clip == "codec" else self.clip

    @abstractmethod
    def trajectory(self, denoise: Denoise, schedule: Schedule, x: Tensor, bound: float | None = None) -> Iterator[Step]:
        """Every step from standard normal noise x (b, k, *s) to the sample, which is the last step's x; `bound`: the codec's."""


class Stepwise(Sampler):
    """The loop, with one formula left open.

    spacing: "trailing" are T-1, T-1 - T/n, ...; "linspace" are n equally spaced timesteps from T-1 to 0, which is how
    guided-diffusion and its descendants respace (Lin et al. 2024, table 2). placed: decreasing timesteps from T-1 that come
    before both in samplings of as many steps; other numbers of steps, as in a report's sweep, keep the rule.
    """

    def __init__(
        self,
        steps: int = 50,
        clip: Clip = "codec",
        inherit_state: bool = True,
        spacing: Spacing = "trailing",
        placed: list[int] | None = None,
    ) -> None:
        if placed is not None and (not placed or min(placed) < 0 or any(later >= earlier for earlier, later in pairwise(placed))):
            raise InputError(f"sampling goes through decreasing timesteps from T-1 to 0 at the lowest, got {placed}")
        self.steps, self.clip, self.inherit_state, self.spacing = steps, clip, inherit_state, spacing
        self.placed = placed if placed is not None and len(placed) == steps else None

    def timesteps(self, total: int) -> list[int]:
        """`steps` decreasing timesteps, the first of them total-1."""
        counted(self.steps, total)
        if self.placed is not None:
            return self.placed
        if self.spacing == "linspace" and self.steps > 1:
            return [round(i * (total - 1) / (self.steps - 1)) for i in reversed(range(self.steps))]
        return [round(total * (1 - i / self.steps)) - 1 for i in range(self.steps)]

    def trajectory(self, denoise: Denoise, schedule: Schedule, x: Tensor, bound: float | None = None) -> Iterator[Step]:
        ts, clip = checked(self.timesteps(len(schedule)), len(schedule)), self.limit(bound)
        state: State = None
        for t, s in zip(ts, [*ts[1:], -1], strict=True):
            with torch.no_grad():  # not around a yield: it would leak to whoever iterates
                now, then = schedule.at(t), schedule.at(s)
                pred = clipped(denoise(x, torch.full((x.shape[0],), t, device=x.device), state), x, now, clip)
                x_s = self.step(pred, x, now, then)
            yield Step(t, x, pred)
            x, state = x_s, pred.output.state if self.inherit_state else None
        yield Step(-1, x, pred)

    @abstractmethod
    def step(self, pred: Prediction, x: Tensor, now: AlphaSigma, then: AlphaSigma) -> Tensor:
        """x at the next, less noisy timestep; `now` and `then` are (alpha, sigma)."""


def clipped(pred: Prediction, x: Tensor, now: AlphaSigma, clip: float | None) -> Prediction:
    """The prediction with x0_hat clipped and eps_hat made consistent with it."""
    if clip is None:
        return pred
    alpha, sigma = now
    x0 = pred.x0.clamp(-clip, clip)
    return replace(pred, x0=x0, eps=(alpha * x0).neg_().add_(x).div_(sigma))  # in place: maps may be as large as memory allows


def counted(steps: int, total: int) -> None:
    if not 1 <= steps <= total:
        raise InputError(f"--steps {steps}: this method was trained with {total} timesteps; choose 1 to {total}")


def checked(ts: list[int], total: int) -> list[int]:
    """Timesteps that do not start at T-1 are refused: x is pure noise, and the network would take it for a nearly clean mask."""
    if not ts or ts[0] != total - 1:
        raise InputError(
            f"sampling starts from pure noise, so its first timestep must be T-1 = {total - 1}, got {ts[:1]}; "
            "choose a scheduler with trailing timesteps"
        )
    return ts


class DDIM(Stepwise):
    """Song et al. 2021, eq. 12. eta = 0 is deterministic given the first noise; eta = 1 with all steps is ancestral sampling."""

    def __init__(
        self,
        steps: int = 50,
        eta: float = 0.0,
        clip: Clip = "codec",
        inherit_state: bool = True,
        spacing: Spacing = "trailing",
        placed: list[int] | None = None,
    ) -> None:
        super().__init__(steps, clip, inherit_state, spacing, placed)
        if eta < 0:
            raise InputError(f"--method.sampler.eta {eta}: 0 is deterministic, 1 is ancestral; it cannot be negative")
        self.eta = eta

    def step(self, pred: Prediction, x: Tensor, now: AlphaSigma, then: AlphaSigma) -> Tensor:
        (a_t, s_t), (a_s, s_s) = now, then
        var = self.eta**2 * (s_s / s_t) ** 2 * (1 - (a_t / a_s) ** 2)
        x = (a_s * pred.x0).add_(math.sqrt(max(s_s**2 - var, 0.0)) * pred.eps)
        return x + math.sqrt(var) * rng.normal(x.shape, x.device) if var > 0 else x


class Ancestral(Stepwise):
    """Ho et al. 2020, eq. 6-7: the posterior q(x_s | x_t, x0_hat), s < t, over any subset of timesteps.

    Variance: "small" is the posterior's (x0 known), "large" is beta (x0 pure noise), "learned" interpolates their
    logarithms by the network's Output.var in [-1, 1] (Nichol & Dhariwal 2021, eq. 15). No noise is added in the last step.
    """

    def __init__(
        self,
        steps: int = 1000,
        variance: Literal["small", "large", "learned"] = "small",
        clip: Clip = "codec",
        inherit_state: bool = True,
        spacing: Spacing = "trailing",
        placed: list[int] | None = None,
    ) -> None:
        super().__init__(steps, clip, inherit_state, spacing, placed)
        self.variance = variance

    def step(self, pred: Prediction, x: Tensor, now: AlphaSigma, then: AlphaSigma) -> Tensor:
        (a_t, s_t), (a_s, s_s) = now, then
        beta = 1 - (a_t / a_s) ** 2
        mean = a_s * beta / s_t**2 * pred.x0 + a_t / a_s * s_s**2 / s_t**2 * x
        if s_s == 0:
            return mean
        small = beta * (s_s / s_t) ** 2
        match self.variance:
            case "small":
                std: float | Tensor = math.sqrt(small)
            case "large":
                std = math.sqrt(beta)
            case "learned":
                if pred.output.var is None:
                    raise InputError("variance 'learned' needs a network that predicts it; choose --method.sampler.variance small")
                share = (pred.output.var + 1) / 2
                std = (0.5 * (share * math.log(beta) + (1 - share) * math.log(small))).exp()
        return mean + std * rng.normal(x.shape, x.device)
