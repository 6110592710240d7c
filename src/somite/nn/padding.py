"""Images of any size: extended at the far edges to what a network or a window wants, and cut back."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def covered(n: int, side: int) -> int:
    """How many blocks of `side` cover n: rounded up. Not -(-n // side), which other programs that a network is exported to round to zero."""
    return (n + side - 1) // side


def extended(x: Tensor, factor: int) -> Tensor:
    """(b, c, *s), its far edges repeated, to a multiple of `factor` along each axis."""
    for axis in range(2, x.ndim):
        more = covered(x.shape[axis], factor) * factor - x.shape[axis]
        if more:
            edge = x.narrow(axis, x.shape[axis] - 1, 1)
            x = torch.cat([x, edge.expand(*[more if a == axis else n for a, n in enumerate(edge.shape)])], axis)
    return x


def bottomed(x: Tensor, factors: Sequence[int]) -> Tensor:
    """(b, c, *s), its far edges repeated to multiples of `factors`, one an axis, and to two places at the bottom: instance norm needs more
    than one.
    """
    sizes = [covered(n, factor) * factor for n, factor in zip(x.shape[2:], factors, strict=True)]
    if sizes == list(factors):
        sizes[0] *= 2
    more = [size - n for n, size in zip(x.shape[2:], sizes, strict=True)]
    return F.pad(x, [pad for n in reversed(more) for pad in (0, n)], mode="replicate") if any(more) else x


def cropped(x: Tensor, space: Sequence[int]) -> Tensor:
    """(..., *s) cut to `space`."""
    first = x.ndim - len(space)
    for axis, size in enumerate(space, first):
        x = x.narrow(axis, 0, size)
    return x


def mirrored(x: Tensor, axis: int, want: int) -> Tensor:
    """`x` reflected at its end along an axis until it is `want` long."""
    have = x.shape[axis]
    period = torch.cat([torch.arange(have), torch.arange(have - 2, 0, -1)]) if have > 1 else torch.zeros(1, dtype=torch.long)
    return x.index_select(axis, period[torch.arange(want) % len(period)])
