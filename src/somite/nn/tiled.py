"""A cellular rule in windows, for images whose cells no memory holds: to the bit what one window over the whole image gives.

- A window is wider than what is asked of it by as much as the updates reach (its halo), so what is wrong at its edges stays there.
  Where the image ends the window ends, and reflects, as the whole does.
- Which cells act follows from where they are (`Firing.part`).
- The image lies in blocks of 32^2 or 16^3 cells, wherever windows are, and these are of whole blocks. Everything is computed block by
  block, by the same operations on the same shapes: given other shapes, matrix products and vectorised functions round otherwise.
- Attention pools over the whole image before each update, so for each update all windows are computed once more up to it: (n + 1) / 2
  times the work for n updates. Blocks are summed first, and then their sums, in the order of the image.

Only the cells of one window are held, and of all others what is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import rng
from ..errors import InputError
from .automaton import Automaton, Firing, Hashed, at_least_one, neighboured
from .perception import padded

SIDE = {2: 32, 3: 16}  # cells of a block along an axis


@dataclass(frozen=True)
class Box:
    """A part of a grid: from `start` to before `stop`."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(map(slice, self.start, self.stop))

    def inside(self, other: "Box") -> "Box":
        """Where it lies in another box that holds it."""
        start, stop = (tuple(a - b for a, b in zip(ends, other.start, strict=True)) for ends in (self.start, self.stop))
        return Box(start, stop)

    def grown(self, by: int) -> "Box":
        """Padded on both sides, in coordinates in which the padding begins at 0."""
        return Box(self.start, tuple(b + 2 * by for b in self.stop))

    def widened(self, by: int, side: int, space: Sequence[int]) -> "Box":
        """Further `by` cells on all sides, up to the image's ends, rounded up to whole blocks."""
        start = tuple(max(a - by, 0) // side * side for a in self.start)
        stop = tuple(min(-(-(b + by) // side) * side, n) for b, n in zip(self.stop, space, strict=True))
        return Box(start, stop)

    def cut(self, side: int) -> Iterator["Box"]:
        """Boxes of `side`, row by row; smaller at the far ends."""
        for start in product(*[range(a, b, side) for a, b in zip(self.start, self.stop, strict=True)]):
            yield Box(start, tuple(min(a + side, b) for a, b in zip(start, self.stop, strict=True)))


def tileable(tile: int | None, firing: Firing | None, local: bool) -> Firing | None:
    """The firing of a network that is told to compute in tiles: `Hashed` where none was named. Raises InputError where it cannot."""
    if tile is None:
        return firing
    at_least_one(tile=tile)
    if not local:
        raise InputError(
            f"--tile {tile}: this network's norm is over all cells of an image, which no tile holds; leave --tile out, or train with norm cell"
        )
    if firing is not None and type(firing).part is Firing.part:
        firing.part(0.5, 0, 0, (), (), torch.device("cpu"))  # which says why not
    return firing or Hashed()


def exact(rules: Sequence[Automaton], tile: int | None) -> bool:
    """Whether rules are computed as here: without gradient, where a tile was asked for or cells act by `Hashed`."""
    if torch.is_grad_enabled() or any(rule.training for rule in rules):
        return False
    return tile is not None or all(rule.local and isinstance(rule.firing, Hashed) for rule in rules)


def evolved(
    rule: Automaton,
    updates: int,
    space: Sequence[int],
    rows: int,
    born: Callable[[int, Box], Tensor],
    kept: slice,
    tile: int | None,
    device: torch.device,
) -> Tensor:
    """The `kept` channels of each row's cells after `updates` updates, (rows, kept, *space). No gradient.

    born: cells before the first update, (c, *s), of a row and a part of the image. tile: cells of a window along an axis, without its
    halo, rounded up to whole blocks; None: one window.
    """
    neighboured(space)
    answers = torch.empty(rows, len(range(rule.channels)[kept]), *space, device=device)
    for row, key in enumerate(rng.keys(rows, device)):
        Image(rule, key, tuple(space), lambda box, row=row: born(row, box), tile, device).answer(updates, kept, answers[row])
    return answers


class Image:
    """The cells of one image."""

    def __init__(
        self,
        rule: Automaton,
        key: int,
        space: tuple[int, ...],
        born: Callable[[Box], Tensor],
        tile: int | None,
        device: torch.device,
    ) -> None:
        self.rule, self.key, self.space, self.born, self.device = rule, key, space, born, device
        self.side, self.whole = SIDE[len(space)], Box((0,) * len(space), space)
        self.tiles = [self.whole] if tile is None else list(self.whole.cut(-(-tile // self.side) * self.side))
        self.beside = 0 if rule.attention is None else rule.attention.place.kernel_size[0] // 2
        self.reach = rule.perceive.reach + self.beside  # of one update
        self.gates: list[Tensor] = []  # (c,), of the attention at each update

    def answer(self, updates: int, kept: slice, into: Tensor) -> None:
        """into: (kept, *space)."""
        if self.rule.attention is not None and len(self.tiles) > 1:
            for update in range(updates):
                self.gates.append(self.gate((tile, self.after(update, tile)) for tile in self.tiles))
        for tile in self.tiles:
            into[(slice(None), *tile.slices)] = self.after(updates, tile).movedim(-1, 0)[kept]

    def after(self, updates: int, tile: Box) -> Tensor:
        """The cells of a tile (*s, c) after so many updates."""
        window = tile.widened(updates * self.reach, self.side, self.space)
        cells = self.born(window).movedim(0, -1).clone(memory_format=torch.contiguous_format)
        for update in range(updates):
            if self.rule.attention is not None and update == len(self.gates):  # the window is the image
                self.gates.append(self.gate([(tile, cells)]))
            fired = self.rule.firing.part(self.rule.update_rate, self.key, update, window.start, window.stop, self.device)
            needed = tile.widened((updates - 1 - update) * self.reach, self.side, self.space).inside(window)
            self.update(cells, fired, update, needed)
        return cells[tile.inside(window).slices]

    def update(self, cells: Tensor, fired: Tensor, update: int, needed: Box) -> None:
        """One update of the blocks of the window that are still needed, in place."""
        rule, reach = self.rule, self.rule.perceive.reach
        u = cells if rule.attention is None else self.attended(cells, self.gates[update])
        old = padded(u[None], reach)[0].to(rule.arithmetic)  # what neighbours see: before the update
        for block in needed.cut(self.side):
            share = fired[block.slices].flatten()
            index = share.nonzero()[:, 0]
            if not len(index):
                continue
            wide = old[block.grown(reach).slices].clone(memory_format=torch.contiguous_format)
            own = wide[tuple(slice(reach, reach + n) for n in block.shape)].flatten(0, -2)
            near = rule.perceive.convolved(wide[None], rule.arithmetic)[0].flatten(0, -2)
            ds = rule.unpinned(rule.change(torch.cat([own[index], near[index]], 1)).to(cells.dtype))
            now = cells[block.slices].flatten(0, -2)
            now = now.index_copy(0, index, now[index] + share[index, None] * ds)
            cells[block.slices] = now.view(*block.shape, -1)

    def attended(self, cells: Tensor, gate: Tensor) -> Tensor:
        """Cells with their attention: `CBAM`, block by block, with the gate of the whole image's channels."""
        attention, beside = self.rule.attention, self.beside
        assert attention is not None
        blocks = list(Box((0,) * len(self.space), tuple(cells.shape[:-1])).cut(self.side))
        maps = cells.new_zeros(2, *(n + 2 * beside for n in cells.shape[:-1]))
        for block in blocks:
            gated = cells[block.slices].contiguous() * gate
            inner = tuple(slice(a + beside, b + beside) for a, b in zip(block.start, block.stop, strict=True))
            maps[(0, *inner)], maps[(1, *inner)] = gated.amax(-1), gated.mean(-1)
        u, conv = torch.empty_like(cells), {2: F.conv2d, 3: F.conv3d}[len(self.space)]
        for block in blocks:
            around = maps[(slice(None), *block.grown(beside).slices)].clone(memory_format=torch.contiguous_format)
            place = conv(around[None], attention.place.weight)[0, 0].sigmoid()
            here = cells[block.slices]
            u[block.slices] = here + here * gate * place[..., None]
        return u

    def gate(self, parts: Iterator[tuple[Box, Tensor]] | Sequence[tuple[Box, Tensor]]) -> Tensor:
        """What the attention makes of the largest value and the mean of each channel over the image, given tile by tile."""
        attention, channels = self.rule.attention, self.rule.channels
        assert attention is not None
        most = attention.place.weight.new_full((channels,), -torch.inf)
        sums = most.new_zeros(*(-(-n // self.side) for n in self.space), channels)
        for tile, cells in parts:
            for block in tile.cut(self.side):
                part = cells[block.inside(tile).slices].flatten(0, -2).contiguous()
                most = torch.maximum(most, part.amax(0))
                sums[tuple(a // self.side for a in block.start)] = part.sum(0)
        mean = sums.flatten(0, -2).sum(0) / torch.Size(self.space).numel()
        return attention.gate(most[None], mean[None])[0]
