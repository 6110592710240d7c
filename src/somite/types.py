"""The vocabulary that every other file speaks.

Shapes: b batch, c channels, k mask channels, *s spatial axes (h w in 2D, h w d in 3D).
Time: t is a LongTensor (b,) of training timesteps, 0 the least noisy, T-1 the most; -1 stands for the clean target.
Values: in data space masks and probabilities lie in [0, 1] and images are normalised by the data's transform;
logits and noise exist only inside a method.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .errors import InputError

Maps = Float[Tensor, "b c *s"]
Target = Shaped[Tensor, "b c *s"]  # in data space: label indices (b 1 *s), or an image
Timesteps = Int[Tensor, " b"]
Sample = dict[str, Tensor]  # "image" (b c *s), "mask" (b 1 *s), "labels" (b k) of 0 and 1: a batch as data yields it
LESSON = ("soft", "known")  # further entries of a batch, (b k *s) and (b 1): what a teacher says of it, and which masks are known
Shape = tuple[int, ...]
Cond = dict[str, Tensor]  # "image" (b c *s), "coordinates" (b 3 *s) in the body, "labels" (b k) of 0 and 1, "body" (b 1 *s)
State = Any  # opaque to everyone but the network that made it; None means "start afresh"


@dataclass
class Output:
    """What one evaluation returns, for every network."""

    value: Float[Tensor, "b ..."]  # in the parametrisation that the network is trained for
    var: Float[Tensor, "b ..."] | None = None  # learned-variance interpolation in [-1, 1]
    aux: dict[str, Tensor] = field(default_factory=dict)  # named auxiliary maps
    state: State = None  # handed back to the network at the next timestep
    corner: Int[Tensor, "b d"] | None = None  # value and aux are of a part of the maps given, which begins at this cell; None: of all

    def part(self, maps: Tensor) -> Tensor:
        """What the value is of, out of (b, c, *s): a network that trains on patches is compared there alone."""
        if self.corner is None:
            return maps
        size = self.value.shape[2:]
        places = [[slice(a, a + n) for a, n in zip(corner, size, strict=True)] for corner in self.corner.tolist()]
        return torch.stack([row[(..., *place)] for row, place in zip(maps, places, strict=True)])


class Network(nn.Module, ABC):
    """A map from (noisy target, timestep, condition) to an Output."""

    def whole(self, cond: Cond) -> Cond:
        """What is made once of a whole case before windows are cut from it, such as noise that belongs to places; maps lie over the image.

        Only windows (predict/tiling.py) ask for it, without a gradient: a network that needs what it makes also makes it in `encode`,
        where the condition does not hold it yet. A row of `cond` is a case, not a member, so what is drawn has a seed of its own.
        """
        return cond

    def encode(self, cond: Cond) -> Cond:
        """The part of the condition's encoding that depends on neither x nor t: computed once per case."""
        return cond

    @abstractmethod
    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        """One evaluation.

        x (b, k, *s): the noised target in model space, k the codec's channels; zeros where the method is feed-forward.
        t (b,): integers from 0 to T-1, another one for each example in training; zeros where the method is feed-forward.
        cond: "image" (b, c, *s) as the data normalise it, and what else the task gives; as `encode` returned it, b rows.
        state: what the network returned at the timestep before, None at the first.

        Returns a value of x's shape and in x's place, noise, clean target, v or logits, as the method's `predicts` says. Any *s can come: a
        network that halves its maps pads what does not divide, and cuts its answer to x's size.
        """


@dataclass
class Posterior:
    """q(x_{t-1} | x_t, x0) = N(of_x0 x0 + of_x x_t, exp(log_small)); (b,) each. log_large is log beta_t."""

    of_x0: Tensor
    of_x: Tensor
    log_small: Tensor
    log_large: Tensor


@dataclass
class Noised:
    """A training example after the forward process: x_t = alpha_t x0 + sigma_t eps."""

    target: Tensor  # (b, k, *s) probabilities in [0, 1]: one channel for a binary mask, one-hot for classes
    x0: Tensor  # the target in model space
    eps: Tensor
    x_t: Tensor
    t: Tensor
    posterior: Posterior | None = None  # of the step t -> t-1, where there is one
    body: Tensor | None = None  # (b, 1, *s) of 0 and 1: where terms that ask for it look; None: everywhere
    snr: Tensor | None = None  # (b,) alpha_t^2 / sigma_t^2, where there is noise
    soft: Tensor | None = None  # (b, k, *s) a teacher's probabilities, and where they lie in model space
    soft_x0: Tensor | None = None
    known: Tensor | None = None  # (b,) of 0 and 1: whose mask is known; None: everyone's

    def seen(self, out: Output) -> "Noised":
        """The example where the output is of it."""
        if out.corner is None:
            return self
        if self.target.shape[2:] != self.x0.shape[2:]:
            raise InputError("a network that trains on patches needs masks of the target's own size; take a codec of pixels, or patch null")
        maps = ("target", "x0", "eps", "x_t", "body", "soft", "soft_x0")
        return replace(self, **{name: out.part(part) for name in maps if (part := getattr(self, name)) is not None})


@dataclass
class Prediction:
    """An Output read as an estimate of the clean target and of the noise."""

    x0: Tensor
    eps: Tensor
    output: Output
    logits: Tensor | None = None  # where the network predicts logits


def right(coef: Tensor, x: Tensor) -> Tensor:
    """(b,) -> (b, 1, ..., 1), to broadcast against x."""
    return coef.reshape(-1, *[1] * (x.ndim - 1))
