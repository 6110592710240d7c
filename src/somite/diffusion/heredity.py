"""What the cells of one timestep inherit from those of the one before: the state that a network hands on, in sampling and in training.

GeCA's "gene heredity guidance" (arXiv 2407.03018) inherits in sampling what training never showed: states then grow from step to step.
`Chained` trains with what sampling will inherit. `Never` is the default: a study with three seeds found both worse (docs/results/geca.md).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..types import Noised, Prediction, State, right
from .schedule import Schedule

Denoise = Callable[[Tensor, Tensor, State], Prediction]


class Heredity(ABC):
    @abstractmethod
    def trained(self, ex: Noised, schedule: Schedule, denoise: Denoise) -> State:
        """With which state the network is asked about a training example."""

    @abstractmethod
    def sampled(self, state: State) -> State:
        """With which state it is asked in sampling, of what it handed on at the timestep before."""


class InSampling(Heredity):
    """Inherited in sampling, begun anew in training: the published way."""

    def trained(self, ex: Noised, schedule: Schedule, denoise: Denoise) -> State:
        return None

    def sampled(self, state: State) -> State:
        return state


class Never(Heredity):
    """Begun anew at every timestep, and all that there is for networks without a state."""

    def trained(self, ex: Noised, schedule: Schedule, denoise: Denoise) -> State:
        return None

    def sampled(self, state: State) -> State:
        return None


class Chained(InSampling):
    """Inherited in both: a share of the batches is asked with what a chain of 1 to `longest` earlier timesteps hands on, without gradient.

    The chain leads from noise to the example: x at its timesteps t_1 > t_2 > ... > t is drawn from q(x_(t_1), x_(t_2), ... | x_t), which
    is where ancestral sampling passes. Where an example's t is the last timestep, the chain stays there.
    """

    def __init__(self, share: float = 0.6, longest: int = 5) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"the share of batches that inherit lies in [0, 1], got {share}; set --method.heredity.share 0.6")
        if longest < 1:
            raise InputError(f"a chain has at least one timestep, got {longest}; set --method.heredity.longest 5")
        self.share, self.longest = share, longest

    @torch.no_grad()
    def trained(self, ex: Noised, schedule: Schedule, denoise: Denoise) -> State:
        chosen = rng.uniform((len(ex.x_t), 2), ex.x_t.device)[0]  # of a batch: a state cannot be divided by anyone but its network
        if chosen[0] >= self.share:
            return None
        state: State = None
        for t, x in reversed(self.climbed(ex, schedule, 1 + int(chosen[1] * self.longest))):
            state = denoise(x, t, state).output.state
        return state

    def climbed(self, ex: Noised, schedule: Schedule, count: int) -> list[tuple[Tensor, Tensor]]:
        """`count` pairs of t (b,) and x_t, from the example towards noise: q(x_u | x_t), u > t, is the forward process taken further."""
        total, device = len(schedule), ex.x_t.device
        above = rng.uniform((len(ex.t), count), device).sort(1).values * (total - 1 - ex.t[:, None])
        walked, (t, x) = [], (ex.t, ex.x_t)
        for step in above.unbind(1):
            later = (ex.t + 1 + step.long()).clamp(max=total - 1)
            (alpha, _), (further, _) = schedule(t), schedule(later)
            ratio = torch.where(later == t, 1.0, further / alpha)  # 0 / 0 at the end of a schedule without terminal signal
            noise = rng.normal(tuple(x.shape), device)
            t, x = later, right(ratio, x) * x + right((1 - ratio**2).clamp(min=0).sqrt(), x) * noise
            walked.append((t, x))
        return walked


HEREDITIES = {"anew": Never, "inherited": InSampling}  # in sampling, whatever the training was
