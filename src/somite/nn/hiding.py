"""Blocks of a picture that a network does not get to see while it learns."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import rng


def seen_blocks(shape: Sequence[int], share: float, block: Sequence[int] | int, device: torch.device) -> Tensor:
    """(b, 1, *s) of 1 and 0 for a picture of `shape` (b, c, *s): each block of so many voxels an axis is hidden, 0, with probability `share`."""
    b, _, *space = shape
    sides = [block] * len(space) if isinstance(block, int) else list(block)
    cells = [-(-n // side) for n, side in zip(space, sides, strict=True)]
    seen = (rng.uniform((b, 1, *cells), device) >= share).float()
    for axis, side in enumerate(sides, 2):
        seen = seen.repeat_interleave(side, axis)
    return seen[(..., *(slice(n) for n in space))]
