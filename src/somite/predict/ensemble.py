"""A method and a case in, an ensemble of answers out: members are drawn, put back into the case's geometry and fused here only.

The mean, the spread and the fusion are accumulated member by member, and a volume that a 2D network sees slice by slice is done
a few slices at a time, so memory does not grow with the ensemble. Members are kept where they are asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..data.preprocess import Preprocess
from ..data.record import Record
from ..diffusion.methods import Method
from ..rng import seeded
from ..types import Cond, Shape
from ..wording import count
from .fusion import Fusion


@dataclass(repr=False)
class Result:
    """What is known of one case, in its own geometry; k is 1 for a binary mask (the spread and the members likewise)."""

    record: Record  # the case: its id, image and geometry
    mask: np.ndarray  # (*s) uint8 label indices
    probability: np.ndarray  # (k, *s) float32
    spread: np.ndarray  # (k, *s) float32, standard deviation over the members
    members: np.ndarray | None  # (m, k, *s) float32 probabilities, where they were asked for
    count: int  # of members

    def __repr__(self) -> str:
        return f"<Result of {self.record.case.id!r}: mask {self.mask.shape}, {count(self.count, 'member')}>"

    @property
    def drawn(self) -> np.ndarray:
        """The members, where they must be there."""
        if self.members is None:
            raise ValueError(f"the members of {self.record.case.id} were not kept; ask for them with keep=True")
        return self.members

    def first(self, count: int, fusion: Fusion) -> "Result":
        """What the first `count` members alone would have given."""
        return fused(self.record, self.drawn[:count], fusion, keep=True)


@dataclass(frozen=True)
class Model:
    """One network's way from a case to members: several of them are the folds of a cross-validation."""

    method: Method
    preprocess: Preprocess
    cond: Cond  # of the case's n rows (slices)
    shape: Shape  # of their targets in data space, (n, c, *s)

    def members(self, record: Record, rows: range, count: int, seed: int, batch: int) -> Iterator[np.ndarray]:
        """(k, *native of these rows), one member after the other."""
        for maps in draw(self.method, self.cond, self.shape, record.case.id, rows, count, seed, batch):
            yield self.preprocess.restore(maps, record)


def answer(
    models: Sequence[Model], record: Record, members: int, fusion: Fusion, seed: int = 0, batch: int = 10, keep: bool = False
) -> Result:
    """`members` independent samples of each model, each a function of (seed, case, slice, member) whatever the batch."""
    rows = models[0].shape[0]
    apart = fusion.local and all(model.preprocess.whole for model in models)  # else slices are not slabs of the file's volume
    step = max(1, batch // members) if apart else rows
    slabs = [range(at, min(at + step, rows)) for at in range(0, rows, step)]
    drawn = ([model.members(record, slab, members, seed, batch) for model in models] for slab in slabs)
    return joined([fused(record, chain.from_iterable(streams), fusion, keep) for streams in drawn], models[0].preprocess.axis)


def fused(record: Record, members: Iterable[np.ndarray], fusion: Fusion, keep: bool = False) -> Result:
    """The one place where members become a result. The spread is accumulated as Welford (1962) does it."""
    tally, kept, count = fusion.start(), [], 0
    mean = squares = np.zeros(0)
    for member in members:
        count += 1
        tally.add(member)
        if count == 1:
            mean = member  # in double precision only once there are two: of a volume that is large
        else:
            if count == 2:
                mean, squares = mean.astype(np.float64), np.zeros(mean.shape)
            apart = member - mean
            mean += apart / np.float32(count)
            squares += np.multiply(apart, member - mean, out=apart)
        if keep:
            kept.append(member)
    probability = tally.value()
    spread = np.zeros(probability.shape) if count < 2 else np.sqrt(np.divide(squares, np.float32(count), out=squares), out=squares)
    return Result(record, fusion.decide(probability), probability, spread, np.stack(kept) if keep else None, count)


def joined(parts: Sequence[Result], axis: int) -> Result:
    """Slabs of a volume, one after the other along `axis`, as one result."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    mask, probability, spread = (
        np.concatenate([getattr(part, name) for part in parts], axis + before)
        for name, before in (("mask", 0), ("probability", 1), ("spread", 1))
    )
    members = None if first.members is None else np.concatenate([part.drawn for part in parts], axis + 2)
    return Result(first.record, mask, probability, spread, members, first.count)


def draw(method: Method, cond: Cond, shape: Shape, case: str, rows: range, members: int, seed: int, batch: int) -> Iterator[Tensor]:
    """Each member of some rows of a case, (len(rows), k, *s) on the CPU, `batch` pairs of row and member at a time.

    `cond` and `shape` are of all rows. What a batch holds of one row is encoded once.
    """
    device = next(method.parameters()).device
    pairs = [(row, member) for member in range(members) for row in rows]
    done: list[Tensor] = []
    for at in range(0, len(pairs), batch):
        chunk = pairs[at : at + batch]
        here = sorted({row for row, _ in chunk})
        given = {name: (part if len(here) == len(part) else part[here]).to(device) for name, part in cond.items()}  # no copy of all
        with torch.no_grad(), seeded(seed, [f"{case}/{row}/{member}" for row, member in chunk]):
            maps = method.sample(given, (len(chunk), *shape[1:]), [here.index(row) for row, _ in chunk])
        done += maps.float().cpu().unbind()
        while len(done) >= len(rows):
            yield torch.stack(done[: len(rows)])
            done = done[len(rows) :]


def sample(method: Method, cond: Cond, shape: Shape, case: str, members: int, seed: int, batch: int) -> Tensor:
    """(m, n, k, *s): all members of a case at the network's size."""
    return torch.stack(list(draw(method, cond, shape, case, range(shape[0]), members, seed, batch)))
