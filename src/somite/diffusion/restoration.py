"""Restoration: a picture is spoiled, and a network learns to bring it back. The pretext of Models Genesis (Zhou et al. 2021, MedIA 67).

Three kinds of spoiling, each seen or not by a draw of its own: brightness bent by a monotone curve, small blocks whose voxels change places,
and either blocks filled with noise (in-painting) or all but a few of them (out-painting). What is learned is shape, texture and context.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..types import Cond, Network, Noised, Prediction, Shape, Target
from .codec import Codec, Signed
from .methods import Method, fitting
from .readout import Sampled
from .terms import Term


class Spoil:
    """How pictures in [-1, 1] are spoiled, each of a batch by itself.

    bent, shuffled, painted: with what probability; outer: how often painting leaves the inside alone. shuffles: blocks whose voxels change
    places, at most a tenth of the picture an axis. holes: painted blocks at most, an eighth to a third of the picture an axis.

    # Paper: up to 10,000 shuffled blocks, one after another; here: fewer by default, because a block's voxels are moved in memory.
    """

    def __init__(
        self, bent: float = 0.9, shuffled: float = 0.5, painted: float = 0.9, outer: float = 0.8, shuffles: int = 200, holes: int = 5
    ) -> None:
        wrong = [
            f"{name} {value}"
            for name, value in {"bent": bent, "shuffled": shuffled, "painted": painted, "outer": outer}.items()
            if not 0 <= value <= 1
        ]
        if wrong:
            raise InputError(f"--method.spoil.{wrong[0]}: a probability lies in [0, 1]")
        self.bent, self.shuffled, self.painted, self.outer = bent, shuffled, painted, outer
        self.shuffles, self.holes = shuffles, holes

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c, *s) -> the same. All that is random is drawn for the whole batch, so that a row is the same whatever is beside it."""
        each = 2 * (x.ndim - 2)  # numbers of a box
        drawn = rng.uniform((len(x), 10 + each * (self.shuffles + self.holes + 1)), x.device)
        order, noise = rng.uniform((len(x), 1, *x.shape[2:]), x.device), 2 * rng.uniform(tuple(x.shape), x.device) - 1
        return torch.cat([self.spoiled(x[i : i + 1], iter(drawn[i].tolist()), order[i], noise[i : i + 1]) for i in range(len(x))])

    def spoiled(self, x: Tensor, numbers: Iterator[float], order: Tensor, noise: Tensor) -> Tensor:
        """One picture (1, c, *s) with uniform `numbers`, an order of its voxels (1, *s) and noise to paint with."""
        bent, shuffled, painted, outside = (next(numbers) < share for share in (self.bent, self.shuffled, self.painted, self.outer))
        space = x.shape[2:]
        if bent:
            x = bezier(x, numbers)
        if shuffled:
            x = swapped(x, boxes(space, self.shuffles, 0.0, 0.1, numbers, least=2), order)
        if painted:
            count = 1 + int(next(numbers) * self.holes)
            places = boxes(space, count, *((0.4, 0.6) if outside else (0.13, 0.33)), numbers)
            x = painted_over(noise, x, places) if outside else painted_over(x, noise, places)
        return x


def bezier(x: Tensor, numbers: Iterator[float]) -> Tensor:
    """Brightness in [-1, 1] along a random monotone cubic curve from corner to corner, falling as often as rising."""
    (a, b), (c, d), falling = sorted(islice(numbers, 2)), sorted(islice(numbers, 2)), next(numbers) < 0.5
    s = torch.linspace(0, 1, 256, device=x.device)
    position, value = (2 * (3 * (1 - s) ** 2 * s * p + 3 * (1 - s) * s**2 * q + s**3) - 1 for p, q in ((a, b), (c, d)))
    x = x.clamp(-1, 1).contiguous()
    at = torch.searchsorted(position.contiguous(), x).clamp(1, 255)
    low, high = position[at - 1], position[at]
    bent = torch.lerp(value[at - 1], value[at], ((x - low) / (high - low).clamp(min=1e-6)).clamp(0, 1))
    return -bent if falling else bent


def boxes(space: Sequence[int], count: int, low: float, high: float, numbers: Iterator[float], least: int = 1) -> list[tuple[slice, ...]]:
    """Boxes inside the picture, of `low` to `high` of its side along each axis, and `least` voxels where it has them."""
    found = []
    for _ in range(count):
        sides = [min(n, max(least, round((low + (high - low) * next(numbers)) * n))) for n in space]
        starts = [int(next(numbers) * (n - side + 1)) for n, side in zip(space, sides, strict=True)]
        found.append(tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True)))
    return found


def swapped(x: Tensor, places: Sequence[tuple[slice, ...]], order: Tensor) -> Tensor:
    """Within each box all voxels change places, as their numbers in `order` (1, *s) rank; all channels together."""
    x = x.clone()
    for box in places:
        inside, rank = x[(..., *box)], order[(0, *box)].flatten().argsort()
        x[(..., *box)] = inside.flatten(2)[..., rank].view_as(inside)
    return x


def painted_over(x: Tensor, other: Tensor, places: Sequence[tuple[slice, ...]]) -> Tensor:
    """`other` in these boxes of x."""
    x = x.clone()
    for box in places:
        x[(..., *box)] = other[(..., *box)]
    return x


class Restoration(Method):
    """The network sees the spoiled target as x at t = 0, and its value is the target as the codec encodes it."""

    def __init__(self, network: Network, terms: dict[str, Term], spoil: Spoil | None = None, codec: Codec | None = None) -> None:
        super().__init__()
        self.network, self.terms, self.spoil = network, terms, spoil or Spoil()
        self.codec, self.readout = codec or Signed(), Sampled()
        self.check("x0")

    def restored(self, spoiled: Tensor, cond: Cond) -> tuple[Prediction, Tensor]:
        t = torch.zeros(len(spoiled), dtype=torch.long, device=spoiled.device)
        out = self.network(spoiled, t, self.network.encode(cond))
        value = out.value.float()
        fitting(value, spoiled)
        return Prediction(value, torch.zeros_like(value), out), t

    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        x0 = self.codec.encode(target)
        pred, t = self.restored(self.spoil(x0), cond)
        return self.total(pred, Noised(self.codec.probabilities(target), x0, torch.zeros_like(x0), x0, t, body=cond.get("body")))

    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        raise InputError(
            "what is learned by restoring pictures are features; train a probe on them: somite train probe/small --backbone RUN"
        )

    @property
    def steps(self) -> int:
        return 1
