"""MedSegDiffNCA: neural cellular automata as denoisers (Mittal et al. 2025, arXiv 2501.02447).

A cell's channels: [estimate | image | x_t | free ... | position | time]. After `updates` updates the estimate is the
network's value and the image's channels have become a rough mask, aux["rgb"], where the paper's RGB loss pulls them.
Nothing is pinned: every channel may change.

With two levels a first automaton runs on a quarter of the resolution; its cells are enlarged, given the full-size image
and x_t, and handed to a second automaton with weights of its own. Of more levels each hands on to the next. The four published variants:

    MedSegDiffNCA             levels 1, cbam False, hidden 256   139,648 parameters
    CBAM-MedSegDiffNCA        levels 1, cbam True,  hidden 512   206,118
    Multi-MedSegDiffNCA       levels 2, cbam False, hidden 512   410,880
    MultiCBAM-MedSegDiffNCA   levels 2, cbam True,  hidden 512   412,236  (the default)
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..nn.attention import CBAM
from ..nn.automaton import Automaton, Firing, at_least_one
from ..nn.enlarge import enlarged
from ..nn.levels import Each, Parts, each, patched, shrinkable
from ..nn.padding import covered
from ..nn.perception import Perception
from ..nn.tiled import Box, evolved, exact, tileable
from ..types import Cond, Maps, Network, Output, State, Timesteps


class MedSegDiffNCA(Network):
    """`channels` a cell, `hidden` units in its perceptron, `updates`, and a `kernel` through which it perceives, at each of `levels`
    levels: one number, or one for each, coarsest first. Levels are a factor `scale` apart: one number, or one for each step.

    norm: "cell" normalises a cell's hidden units alone (local, any image size); "layer" does so before they are activated, with weights
    that are trained; "global" all cells of an image together, as the official code does (# Paper: unknown; the affine part of the
    official LayerNorm is left out, because it would tie 67 M parameters to one image size); "none".
    deep: each level's estimate is a head: in training those of the coarser levels are aux["deep"] (b, levels - 1, k, *s), the finest of
    them first, enlarged, for the term `DeepSupervision` where the network predicts logits.
    patch: in training the levels but the coarsest see a random part of what the one before them saw, so many cells along each axis (a
    number, or one an axis), and the loss is of the last part alone. Where that is larger than what there is, all of it is taken.
    time_scale: t is given to the cells as t / time_scale; 1 is the official raw t.
    position: one ramp from corner to corner, its mean over the axes; False leaves the channel free.
    downsample: "bilinear" reads the central 2x2 pixels of each 4x4 block, as the official code does; "area" reads all.
    checkpointing: less memory in training for a fifth more time (see nn.automaton).
    firing: which cells act at inference (`Stochastic`, `Expected`); training is always stochastic.
    arithmetic: precision of the matrix products at inference; "bfloat16" is faster where the machine has instructions for it
    (environment.has_bfloat16) and slower elsewhere. Cells stay in float32, and so does everything with norm "global".
    tile: at inference, cells of a window along an axis, for images of any size: to the bit what one window gives (nn.tiled). Cells then
    act by `Hashed`, or `Expected`. None: the whole image at once. With norm "global" there are no tiles.
    """

    def __init__(
        self,
        channels: Each = 64,
        hidden: Each = 512,
        updates: Each = 10,
        levels: int = 2,
        cbam: bool = True,
        scale: Each = 4,
        image_channels: int = 3,
        mask_channels: int = 1,
        norm: Literal["cell", "layer", "global", "none"] = "cell",
        update_rate: float = 0.5,
        dropout: float = 0.25,
        time_scale: float = 1000.0,
        position: bool = True,
        downsample: Literal["bilinear", "area"] = "bilinear",
        dims: Literal[2, 3] = 2,
        checkpointing: bool = True,
        firing: Firing | None = None,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
        tile: int | None = None,
        kernel: Each = 3,
        deep: bool = False,
        patch: Each | None = None,
    ) -> None:
        super().__init__()
        at_least_one(levels=levels)
        widths, hiddens, kernels = (
            each(name, given, levels) for name, given in (("channels", channels), ("hidden", hidden), ("kernel", kernel))
        )
        self.updates, self.scales = each("updates", updates, levels), each("scale", scale, levels - 1, "steps between levels")
        if deep and levels == 1:
            raise InputError("--method.network.deep true: one level has no coarser ones; give --method.network.levels 2 or more")
        firing, self.tile = tileable(tile, firing, local=norm != "global"), tile
        if not time_scale > 0:
            raise InputError(f"--method.network.time_scale {time_scale}: t is divided by it, so it must be above 0; 1000 is usual")
        needed = 2 * mask_channels + image_channels + 2
        if min(widths) < needed:
            raise InputError(
                f"{min(widths)} channels a cell cannot hold the image, the mask, position and time; --method.network.channels must be at least {needed}"
            )
        self.deep, self.patch = deep, patched(patch, dims)
        self.image_channels, self.mask_channels, self.dims = image_channels, mask_channels, dims
        self.time_scale, self.position, self.downsample = time_scale, position, downsample
        self.levels = nn.ModuleList(
            Automaton(
                width,
                inner,
                update_rate=update_rate,
                dims=dims,
                slope=0.01,
                norm="none" if norm == "layer" else norm,
                dropout=dropout,
                attention=CBAM(width, dims=dims) if cbam else None,
                checkpointing=checkpointing,
                firing=firing,
                arithmetic=arithmetic,
                perception=Perception(width, wide, dims),
                before=nn.LayerNorm(inner) if norm == "layer" else None,
            )
            for width, inner, wide in zip(widths, hiddens, kernels, strict=True)
        )

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image, k, time = cond["image"], self.mask_channels, t.float() / self.time_scale
        self.check(image, x)
        if exact(list(self.levels), self.tile):  # type: ignore[arg-type]
            return self.windowed([image, x], time)
        given = torch.cat([image, x], 1)  # (b, image + k, *s)
        parts, cells, told = Parts(self.patch if self.training else None), None, []
        for depth, level, updates in self.pyramid():
            maps = self.reduced(given, depth)
            parts.enter(maps)
            if cells is not None:
                if self.deep and self.training:
                    told = [parts.inherited(estimate) for estimate in (cells[:, :k], *told)]
                cells = parts.inherited(cells)
            position = parts.seen(ramp(maps.shape[2:], maps.device)) if self.position else None
            cells = level(self.seed(parts.seen(maps), time, cells, position, depth), updates)
        assert cells is not None
        aux = {"rgb": cells[:, k : k + self.image_channels]}
        return Output(cells[:, :k], aux=aux | ({"deep": torch.stack(told, 1)} if told else {}), corner=parts.corner)

    def pyramid(self) -> Iterator[tuple[int, Automaton, int]]:
        """Of each level, coarsest first: how many levels lie below it, its rule, its updates."""
        return zip(reversed(range(len(self.levels))), self.levels, self.updates, strict=True)  # type: ignore[arg-type]

    def windowed(self, given: Sequence[Tensor], time: Tensor) -> Output:
        """The value in windows; aux["rgb"] is training's, and would be most of the memory.

        Image and x_t are of the whole image, and cut; of coarse levels all cells are held, of the finest the estimates.
        """
        cells: Tensor | None = None
        for depth, level, updates in self.pyramid():
            maps, coarser = [self.reduced(part, depth) for part in given], cells
            space = maps[0].shape[2:]

            def born(row: int, box: Box, maps=maps, coarser=coarser, space=space, depth=depth) -> Tensor:  # noqa: ANN001
                here = torch.cat([part[row][(slice(None), *box.slices)] for part in maps])[None]
                below = None if coarser is None else enlarged(coarser[row], space, box.slices)[None]
                return self.seed(here, time[row : row + 1], below, ramp(space, here.device, box.slices), depth)[0]

            kept = slice(self.mask_channels if depth == 0 else None)
            cells = evolved(level, updates, space, len(time), born, kept, self.tile, time.device)
        assert cells is not None
        return Output(cells)

    def check(self, image: Tensor, x: Tensor) -> None:
        have, want = image.shape[1] + x.shape[1], self.image_channels + self.mask_channels
        if have != want or image.ndim != 2 + self.dims:
            raise InputError(
                f"this network takes {self.image_channels} image and {self.mask_channels} mask channels in {self.dims}D, "
                f"together (b, {want}, ...), got {(len(image), have, *image.shape[2:])}; set --method.network.image_channels, mask_channels or dims"
            )
        if len(self.levels) > 1:
            space = image.shape[2:]
            shrinkable(space, self.size(space, len(self.levels) - 1), len(self.levels))

    def size(self, space: Sequence[int], depth: int) -> list[int]:
        """Of a level with `depth` levels below it, rounded up."""
        return [covered(n, prod(self.scales[len(self.scales) - depth :])) for n in space]

    def reduced(self, given: Tensor, depth: int) -> Tensor:
        """`given` as the level with `depth` levels below it sees it."""
        if depth == 0:
            return given
        size = self.size(given.shape[2:], depth)
        if self.downsample == "area":
            return {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[self.dims](given, size)
        return F.interpolate(given, size=size, mode={2: "bilinear", 3: "trilinear"}[self.dims], align_corners=False)

    def seed(self, given: Tensor, time: Tensor, coarser: Tensor | None, position: Tensor | None = None, depth: int = 0) -> Tensor:
        """Cells before the first update of a level; estimate and free channels are inherited from the coarser level, as many as both have.

        position: of the cells given, where they are not a whole image. depth: how many levels lie below this one.
        """
        k, known, space = self.mask_channels, given.shape[1], given.shape[2:]
        fixed = [time.reshape(-1, *[1] * (given.ndim - 1)).expand(-1, 1, *space)]
        if self.position:
            place = ramp(space, given.device) if position is None else position
            fixed.insert(0, place.expand(given.shape[0], 1, *space))
        level: Automaton = self.levels[-1 - depth]  # type: ignore[assignment]
        inner, cells = level.channels - len(fixed), given.new_zeros(given.shape[0], 0, *space)
        if coarser is not None:
            cells = coarser[:, : min(inner, coarser.shape[1] - len(fixed))]
            cells = cells if cells.shape[2:] == space else F.interpolate(cells, size=space, mode="nearest")
        cells = torch.cat([cells, given.new_zeros(given.shape[0], inner - cells.shape[1], *space)], 1)
        return torch.cat([cells[:, :k], given, cells[:, k + known :], *fixed], 1)


def ramp(space: Sequence[int], device: torch.device, part: Sequence[slice] | None = None) -> Tensor:
    """(1, 1, *s): the mean over the axes of a ramp from 0 to 1, or a part of it."""
    axes = [torch.linspace(0, 1, n, device=device) for n in space]
    axes = axes if part is None else [axis[cut] for axis, cut in zip(axes, part, strict=True)]
    first, *rest = torch.meshgrid(*axes, indexing="ij")
    return (sum(rest, first) / len(axes))[None, None]
