"""Images of any size for networks that halve them: extend at the far edges, cut the output back."""

from collections.abc import Sequence

import torch
from torch import Tensor


def extended(x: Tensor, factor: int) -> Tensor:
    """(b, c, *s), its far edges repeated, to a multiple of `factor` along each axis."""
    for axis in range(2, x.ndim):
        more = -x.shape[axis] % factor
        if more:
            edge = x.narrow(axis, x.shape[axis] - 1, 1)
            x = torch.cat([x, edge.expand(*[more if a == axis else n for a, n in enumerate(edge.shape)])], axis)
    return x


def cropped(x: Tensor, space: Sequence[int]) -> Tensor:
    """(..., *s) cut to `space`."""
    first = x.ndim - len(space)
    for axis, size in enumerate(space, first):
        x = x.narrow(axis, 0, size)
    return x
