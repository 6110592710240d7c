"""Nearest enlargement of parts: to the bit what the whole map's would give there."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest(have: int, want: int, device: torch.device) -> Tensor:
    """Which of `have` places each of `want` places is enlarged from along an axis (want,): torch's own answer, asked of numbers."""
    numbers = torch.arange(have, dtype=torch.float64, device=device)
    return F.interpolate(numbers[None, None], size=want, mode="nearest")[0, 0].long()


def taken(maps: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Of (..., *s) these places along each of the last axes."""
    for axis, place in zip(range(-len(places), 0), places, strict=True):
        maps = maps.index_select(axis, place)
    return maps


def enlarged(coarse: Tensor, space: Sequence[int], part: Sequence[slice]) -> Tensor:
    """(c, *s) as it would be at the size `space`, of which only this part is made."""
    return taken(coarse, [nearest(have, want, coarse.device)[cut] for have, want, cut in zip(coarse.shape[1:], space, part, strict=True)])
