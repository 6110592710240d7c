"""Pyramids of automata, coarsest first: what is said of each level, how a level inherits from the one before it, parts of fine levels,
and the pyramid whose cells keep an image, [image (pinned) | answer ... free].
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import rng
from ..errors import InputError
from .automaton import Automaton, at_least_one
from .enlarge import enlarged, nearest, taken
from .tiled import Box, evolved, exact

Each = int | list[int]  # one number for all levels, or one for each, coarsest first


def each(name: str, given: Each, count: int, of: str = "levels") -> list[int]:
    """One number for each level. Raises InputError for another length, or a number below 1."""
    if isinstance(given, int):
        at_least_one(**{name: given})
        return [given] * count
    if len(given) != count:
        raise InputError(f"--method.network.{name} {given}: {len(given)} numbers for {count} {of}; give one number, or one for each")
    for value in given:
        at_least_one(**{name: value})
    return list(given)


def patched(patch: Each | None, dims: int) -> list[int] | None:
    """Cells of a patch along each axis. Raises InputError where a cell would have no neighbour."""
    sizes = None if patch is None else each("patch", patch, dims, "axes")
    if sizes and min(sizes) < 2:
        raise InputError(f"--method.network.patch {patch}: a cell needs a neighbour along each axis, so give at least 2")
    return sizes


def holding(channels: int, image_channels: int, mask_channels: int) -> None:
    """Raises InputError for cells too narrow for an image and a mask."""
    if channels < image_channels + mask_channels:
        raise InputError(
            f"{channels} channels a cell cannot hold {image_channels} image and {mask_channels} mask channels; raise --method.network.channels"
        )


def fitting(image: Tensor, channels: int, dims: int) -> None:
    """Raises InputError for an image (b, c, *s) of other channels or axes."""
    if image.shape[1] != channels or image.ndim != 2 + dims:
        raise InputError(
            f"this network takes images of {channels} channels in {dims}D, got {tuple(image.shape)}; "
            "set --data.preprocess.channels or --method.network.image_channels"
        )


def shrinkable(space: Sequence[int], small: Sequence[int], levels: int) -> None:
    """Raises InputError for an image whose coarsest of several levels, of size `small`, has fewer than two cells along an axis."""
    if any(n < 2 for n in small):
        raise InputError(
            f"images of {' x '.join(map(str, space))} shrink to {' x '.join(map(str, small))} cells at the coarsest of {levels} levels, "
            "where cells have no neighbours; take fewer --method.network.levels, a smaller --method.network.scale or larger images"
        )


class Parts:
    """What of each level is seen, coarsest first: all of it, or with a `patch` all of the coarsest level and of each finer one a random
    part of what the level before it saw, so many cells along each axis, for each row by itself. A patch larger than that takes all of it.
    """

    corner: Tensor | None = None  # (b, d), the first cell of the part that is seen; None: all is

    def __init__(self, patch: Sequence[int] | None) -> None:
        self.patch = patch
        self.space: Sequence[int] = ()  # of the whole level
        self.shown: Sequence[int] = ()  # of what is seen of it
        self.rows: list[tuple[list[Tensor], list[Tensor]]] = []  # places along each axis: in the level, and in what the one before saw

    def enter(self, maps: Tensor) -> None:
        """The next level: (b, c, *s)."""
        before, self.space = self.space, maps.shape[2:]
        if self.patch is None or not before:
            self.shown = self.space
            return
        have, device = self.shown, maps.device
        firsts = [[0] * len(have)] * len(maps) if self.corner is None else self.corner.tolist()
        ways = [nearest(n, m, device) for n, m in zip(before, self.space, strict=True)]  # whose cell each cell inherits
        inside = [[((way >= a) & (way < a + n)).nonzero()[:, 0] for way, a, n in zip(ways, first, have, strict=True)] for first in firsts]
        size = [min(want, *(len(row[axis]) for row in inside)) for axis, want in enumerate(self.patch)]
        chance = rng.uniform((len(maps), len(size)), device).tolist()
        self.rows = []
        for places, first, lots in zip(inside, firsts, chance, strict=True):
            starts = [int(lot * (len(place) - n + 1)) for lot, place, n in zip(lots, places, size, strict=True)]
            chosen = [place[a : a + n] for place, a, n in zip(places, starts, size, strict=True)]
            self.rows.append((chosen, [way[place] - a for way, place, a in zip(ways, chosen, first, strict=True)]))
        self.corner = torch.tensor([[int(place[0]) for place in chosen] for chosen, _ in self.rows], device=device)
        self.shown = size

    def seen(self, maps: Tensor) -> Tensor:
        """Of maps of the whole level, (b, c, *s) or (1, c, *s)."""
        if not self.rows:
            return maps
        return torch.stack(
            [taken(row, here) for row, (here, _) in zip(maps.expand(len(self.rows), *maps.shape[1:]), self.rows, strict=True)]
        )

    def inherited(self, cells: Tensor) -> Tensor:
        """What the level before made (b, c, *s), as large as what is seen of this one."""
        if self.rows:
            return torch.stack([taken(row, whence) for row, (_, whence) in zip(cells, self.rows, strict=True)])
        return F.interpolate(cells, size=self.space, mode="nearest") if cells.shape[2:] != self.space else cells


def answered(rules: Sequence[Automaton], updates: Sequence[int], images: Sequence[Tensor], outputs: int, tile: int | None) -> Tensor:
    """The `outputs` channels behind the image of the finest level, (b, outputs, *s).

    images: (b, c, *s) of each level. Each level inherits the other channels of the one before it, as many as it has, enlarged.
    """
    windows = exact(rules, tile)
    pinned, cells = images[0].shape[1], images[0].new_zeros(images[0].shape[0], 0, *images[0].shape[2:])
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
    born = image.new_zeros(image.shape[0], rule.channels - image.shape[1] - inherited.shape[1], *image.shape[2:])
    return rule(torch.cat([image, inherited, born], 1), updates)


def windowed(rule: Automaton, updates: int, image: Tensor, inherited: Tensor, kept: slice, tile: int | None) -> Tensor:
    """The `kept` channels of the same, in windows."""
    space, free = image.shape[2:], rule.channels - image.shape[1] - inherited.shape[1]

    def born(row: int, box: Box) -> Tensor:
        below = enlarged(inherited[row], space, box.slices)
        return torch.cat([image[row][(slice(None), *box.slices)], below, image.new_zeros(free, *box.shape)])

    return evolved(rule, updates, space, len(image), born, kept, tile, image.device)
