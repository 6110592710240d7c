"""The vocabulary that every other file speaks.

Shapes: b batch, c channels, k mask channels, *s spatial axes (h w in 2D, h w d in 3D).
Time: t is a LongTensor (b,) of training timesteps, 0 the least noisy, T-1 the most; -1 stands for the clean target.
Values: in data space masks and probabilities lie in [0, 1] and images are normalised by the data's transform;
logits and noise exist only inside a method.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

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
    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output: ...


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
