"""One cellular rule: perceive the neighbourhood, think, and let a random share of the cells act.

    z  = [u, p0 * u, p1 * u]          two learned dense 3x3 convolutions beside the cell itself; reflect padding (nn.perception)
    ds = W1 norm(act(W0 z + b0))      a two-layer perceptron a cell, no bias at the end, W1 = 0 at the start
    s <- s + fired . ds               `fired` is one number a cell, shared by its channels

with u = s, or u = s + attention(s). Kalkhof et al. 2023 (Med-NCA, arXiv 2302.03473) and Mittal et al. 2025
(MedSegDiffNCA, arXiv 2501.02447, eq. 2); with another perception, and a norm before act, Kalkhof & Mukhopadhyay 2023 (M3D-NCA,
arXiv 2309.02954). Cells are held channels-last, (b, *s, c), as every matrix product wants them.

Four forms of the same update, equal to rounding:
- dense, with gradient, one checkpoint an update (only the cells are kept, the rest is recomputed);
- fired cells only, without gradient: where the rule is local, a cell that does not act need not think, so its
  neighbourhood is gathered for the acting cells alone, a thousand at a time. Half the work and a fraction of the memory;
- mean field (`Expected`): every cell acts by its expected share, one deterministic pass;
- everywhere: no cell is left out, for programs that other machines run (`somite export`).
A fifth, in windows, is nn.tiled.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .. import rng
from ..errors import InputError
from ..types import Shape
from .attention import CBAM
from .perception import Perception, neighbourhood, padded

CHUNK = 1024  # cells at a time: their hidden layer (2 MiB at 512 units) stays in the cache
ARITHMETIC = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Firing(ABC):
    """Which cells act: a (b, *s) map, boolean or a share in [0, 1], for each update."""

    @abstractmethod
    def draw(self, update_rate: float, shape: Shape, device: torch.device) -> Tensor: ...

    def part(self, update_rate: float, key: int, update: int, start: Sequence[int], stop: Sequence[int], device: torch.device) -> Tensor:
        """The map (*s) of the cells from `start` to before `stop` of one image, which does not depend on what part was asked for.

        Raises InputError where maps are drawn for whole images only.
        """
        raise InputError(
            f"{type(self).__name__} firing is drawn for a whole image at once; in tiles, cells act by --firing hashed or expected"
        )


class Stochastic(Firing):
    """Each cell acts with probability `update_rate`, in training and by default at inference."""

    def draw(self, update_rate: float, shape: Shape, device: torch.device) -> Tensor:
        return rng.uniform(shape, device) < update_rate


class Hashed(Firing):
    """The same, by a hash of where a cell is: part of an image can be asked for without the rest."""

    def draw(self, update_rate: float, shape: Shape, device: torch.device) -> Tensor:
        origin = [0] * (len(shape) - 1)
        return torch.stack([self.part(update_rate, key, 0, origin, shape[1:], device) for key in rng.keys(shape[0], device)])

    def part(self, update_rate: float, key: int, update: int, start: Sequence[int], stop: Sequence[int], device: torch.device) -> Tensor:
        return rng.placed(key, update, start, stop, device) < update_rate


class Expected(Firing):
    """Mean field: every cell acts by `update_rate` of its change. One deterministic pass in place of an ensemble's mean."""

    def draw(self, update_rate: float, shape: Shape, device: torch.device) -> Tensor:
        return torch.full(shape, update_rate, device=device)

    def part(self, update_rate: float, key: int, update: int, start: Sequence[int], stop: Sequence[int], device: torch.device) -> Tensor:
        return torch.full([b - a for a, b in zip(start, stop, strict=True)], update_rate, device=device)


FIRINGS = {"stochastic": Stochastic, "expected": Expected, "hashed": Hashed}


class Replay(Firing):
    """Maps given one by one, to repeat another program's run or to compare two forms of the rule."""

    def __init__(self, maps: Iterator[Tensor]) -> None:
        self.maps = maps

    def draw(self, update_rate: float, shape: Shape, device: torch.device) -> Tensor:
        return next(self.maps).to(device)


class Cellular(nn.Module):
    """What fires, and computes its matrix products at inference in `arithmetic`: every sampling says so of each."""

    firing: Firing
    arithmetic: torch.dtype


class BatchNorm(nn.BatchNorm1d):
    """Over all cells of all images at hand, at inference too: what a cell becomes depends on what it is answered with."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        """(b, *s, hidden)"""
        return super().forward(input.flatten(0, -2)).view(input.shape)


class Automaton(Cellular):
    """The rule and its repetition. `pinned` leading channels are never changed; `arithmetic` is the precision of the
    matrix products at inference, held as a torch.dtype, while the cells stay in float32. `checkpointing` keeps only the
    cells of each update for the backward pass and computes the rest again: a fifth slower, and memory that hardly grows
    with the updates. perception: None is two dense 3x3 convolutions. before: a norm with weights, of the hidden units before they are
    activated: nn.LayerNorm, a cell by itself, or `BatchNorm`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        update_rate: float = 0.5,
        dims: Literal[2, 3] = 2,
        slope: float = 0.0,
        norm: Literal["cell", "global", "none"] = "none",
        dropout: float = 0.0,
        pinned: int = 0,
        attention: CBAM | None = None,
        checkpointing: bool = True,
        firing: Firing | None = None,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
        perception: Perception | None = None,
        before: nn.LayerNorm | BatchNorm | None = None,
    ) -> None:
        super().__init__()
        at_least_one(channels=channels, hidden=hidden)
        if arithmetic not in ARITHMETIC:
            raise InputError(f"--method.network.arithmetic {arithmetic}: an automaton computes in {' or '.join(ARITHMETIC)}")
        self.perceive = perception or Perception(channels, dims=dims)
        self.think = nn.Linear(channels + self.perceive.features, hidden)
        self.act = nn.Linear(hidden, channels, bias=False)
        nn.init.zeros_(self.act.weight)
        self.dropout = nn.Dropout(dropout)
        self.attention, self.before = attention, before
        self.channels, self.dims, self.slope, self.norm, self.pinned = channels, dims, slope, norm, pinned
        self.update_rate, self.checkpointing = update_rate, checkpointing
        self.firing = firing or Stochastic()
        self.arithmetic = ARITHMETIC[arithmetic]

    @property
    def local(self) -> bool:
        """Whether a cell thinks by itself, so that what does not act need not be computed."""
        return self.norm != "global" and not isinstance(self.before, BatchNorm)

    def forward(self, cells: Tensor, updates: int) -> Tensor:
        """(b, c, *s) -> (b, c, *s) after `updates` updates."""
        neighboured(cells.shape[2:])
        cells = cells.movedim(1, -1).clone(memory_format=torch.contiguous_format)  # (b, *s, c)
        firing = Stochastic() if self.training else self.firing
        for _ in range(updates):
            fired = firing.draw(self.update_rate, tuple(cells.shape[:-1]), cells.device)
            cells = self.update(cells, fired)
        return cells.movedim(-1, 1)

    def update(self, cells: Tensor, fired: Tensor) -> Tensor:
        """One update; `cells` (b, *s, c) may be changed in place where no gradient is asked for."""
        if torch.compiler.is_exporting():
            return self.everywhere(cells, fired)
        if torch.is_grad_enabled():
            if self.checkpointing:
                return checkpoint(self.dense, cells, fired, use_reentrant=False)  # type: ignore[return-value]
            return self.dense(cells, fired)
        return self.acting(cells, fired) if self.local else self.dense(cells, fired)

    def dense(self, cells: Tensor, fired: Tensor) -> Tensor:
        """Perception of all cells by convolution; the perceptron for those that act, or for all if the norm is over all."""
        if not self.local:
            return self.everywhere(cells, fired)
        u = self.perceived(cells)
        z = torch.cat([u, self.perceive(u)], -1)  # (b, *s, c + features)
        index = fired.flatten().nonzero()[:, 0]
        ds = fired.flatten()[index, None] * self.unpinned(self.change(z.flatten(0, -2)[index]))
        return cells.flatten(0, -2).index_add(0, index, ds.to(cells.dtype)).view_as(cells)

    def everywhere(self, cells: Tensor, fired: Tensor) -> Tensor:
        """All cells think, whether they act or not: for a program that is written down once for images of any size."""
        u = self.perceived(cells)
        return cells + fired[..., None] * self.unpinned(self.change(torch.cat([u, self.perceive(u)], -1)))

    def acting(self, cells: Tensor, fired: Tensor) -> Tensor:
        """The acting cells alone, a chunk at a time. Changes `cells` in place."""
        old = padded(self.perceived(cells), self.perceive.reach).to(self.arithmetic)  # what neighbours see: before the update
        rows, flat = old.flatten(0, -2), cells.flatten(0, -2)
        index, share = fired.flatten().nonzero()[:, 0], fired.flatten()
        centre, offsets = neighbourhood(tuple(cells.shape[:-1]), index, self.perceive.reach)
        kernel, bias = self.perceive.gathering(self.arithmetic)
        # A depthwise convolution of all cells costs less than gathering the neighbours of half of them.
        every = self.perceive.convolved(old, self.arithmetic).flatten(0, -2) if self.perceive.depthwise else None
        chunk = CHUNK if cells.device.type == "cpu" else len(index)
        for now, middle in zip(index.split(chunk), centre.split(chunk), strict=True):
            if every is not None:
                near = every.index_select(0, now)
            else:
                around = rows.index_select(0, (middle[:, None] + offsets).flatten()).view(len(middle), kernel.shape[1])  # (n, 9c)
                near = F.linear(around, kernel, bias)
            ds = self.change(torch.cat([rows.index_select(0, middle), near], 1))
            flat.index_copy_(0, now, flat.index_select(0, now) + share[now, None] * self.unpinned(ds.float()))
        return cells

    def perceived(self, cells: Tensor) -> Tensor:
        return cells if self.attention is None else cells + self.attention(cells.movedim(-1, 1)).movedim(1, -1)

    def change(self, z: Tensor) -> Tensor:
        """(..., c + features) -> (..., c): the perceptron."""
        h = F.linear(z, self.think.weight.to(z.dtype), self.think.bias.to(z.dtype))
        if self.before is not None:
            h = self.before(h.float()).to(h.dtype)
        h = F.leaky_relu(h, self.slope, inplace=not torch.is_grad_enabled())
        h = self.dropout(self.normed(h))
        return F.linear(h, self.act.weight.to(h.dtype))

    def normed(self, h: Tensor) -> Tensor:
        match self.norm:
            case "cell":
                return F.layer_norm(h, h.shape[-1:])
            case "global":  # over all cells of an image and their hidden channels, as the official code does
                return F.layer_norm(h, h.shape[1:])
            case _:
                return h

    def unpinned(self, ds: Tensor) -> Tensor:
        return F.pad(ds[..., self.pinned :], (self.pinned, 0)) if self.pinned else ds


def neighboured(space: Sequence[int]) -> None:
    """Raises InputError for a grid in which a cell has no neighbours along an axis."""
    if any(n < 2 for n in space):
        raise InputError(
            f"cells of shape {tuple(space)} have no neighbours along an axis; use images of at least 2 px (8 px for two levels)"
        )


def at_least_one(**options: int) -> None:
    """Raises InputError for a network's option below 1, of which there would be nothing to compute."""
    for name, value in options.items():
        if value < 1:
            raise InputError(f"--method.network.{name} {value}: must be at least 1")
