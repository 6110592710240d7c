"""A pyramid of automata that keep an image in their cells: [image (pinned) | answer ... free], coarsest first."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .automaton import Automaton
from .enlarge import enlarged
from .tiled import Box, evolved, exact


def answered(rules: Sequence[Automaton], updates: Sequence[int], images: Sequence[Tensor], outputs: int, tile: int | None) -> Tensor:
    """The `outputs` channels behind the image of the finest level, (b, outputs, *s).

    images: (b, c, *s) of each level. Each level inherits the other channels of the one before it, as many as it has, enlarged.
    """
    windows = exact(rules, tile)
    pinned, cells = images[0].shape[1], images[0].new_zeros(len(images[0]), 0, *images[0].shape[2:])
    for depth, (rule, count, image) in enumerate(zip(rules, updates, images, strict=True)):
        cells = cells[:, : rule.channels - pinned]
        if windows:
            kept = slice(pinned, pinned + outputs if depth == len(rules) - 1 else None)
            cells = windowed(rule, count, image, cells, kept, tile)
        else:
            cells = whole(rule, count, image, cells)[:, pinned:]
    return cells[:, :outputs]


def whole(rule: Automaton, updates: int, image: Tensor, inherited: Tensor) -> Tensor:
    """Cells (b, c, *s) of one level; `inherited` (b, k, *s) of any size."""
    if inherited.shape[1]:
        inherited = F.interpolate(inherited, size=image.shape[2:], mode="nearest")
    born = image.new_zeros(len(image), rule.channels - image.shape[1] - inherited.shape[1], *image.shape[2:])
    return rule(torch.cat([image, inherited, born], 1), updates)


def windowed(rule: Automaton, updates: int, image: Tensor, inherited: Tensor, kept: slice, tile: int | None) -> Tensor:
    """The `kept` channels of the same, in windows."""
    space, free = image.shape[2:], rule.channels - image.shape[1] - inherited.shape[1]

    def born(row: int, box: Box) -> Tensor:
        below = enlarged(inherited[row], space, box.slices)
        return torch.cat([image[row][(slice(None), *box.slices)], below, image.new_zeros(free, *box.shape)])

    return evolved(rule, updates, space, len(image), born, kept, tile, image.device)
