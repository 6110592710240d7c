"""MedSegDiffNCA: neural cellular automata as denoisers (Mittal et al. 2025, arXiv 2501.02447).

A cell's channels: [estimate | image | x_t | free ... | position | time]. After `updates` updates the estimate is the
network's value and the image's channels have become a rough mask, aux["rgb"], where the paper's RGB loss pulls them.
Nothing is pinned: every channel may change.

With two levels a first automaton runs on a quarter of the resolution; its cells are enlarged, given the full-size image
and x_t, and handed to a second automaton with weights of its own. The four published variants:

    MedSegDiffNCA             levels 1, cbam False, hidden 256   139,648 parameters
    CBAM-MedSegDiffNCA        levels 1, cbam True,  hidden 512   206,118
    Multi-MedSegDiffNCA       levels 2, cbam False, hidden 512   410,880
    MultiCBAM-MedSegDiffNCA   levels 2, cbam True,  hidden 512   412,236  (the default)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..nn.attention import CBAM
from ..nn.automaton import Automaton, Firing, at_least_one
from ..nn.enlarge import enlarged
from ..nn.tiled import Box, evolved, exact, tileable
from ..types import Cond, Maps, Network, Output, State, Timesteps


class MedSegDiffNCA(Network):
    """`channels` a cell, `hidden` units in its perceptron, `updates` at each of `levels` levels, a factor `scale` apart.

    norm: "cell" normalises a cell's hidden units alone (local, any image size); "global" all cells of an image together,
    as the official code does (# Paper: unknown; the affine part of the official LayerNorm is left out, because it would
    tie 67 M parameters to one image size); "none".
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
        channels: int = 64,
        hidden: int = 512,
        updates: int = 10,
        levels: int = 2,
        cbam: bool = True,
        scale: int = 4,
        image_channels: int = 3,
        mask_channels: int = 1,
        norm: Literal["cell", "global", "none"] = "cell",
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
    ) -> None:
        super().__init__()
        at_least_one(channels=channels, hidden=hidden, updates=updates, levels=levels, scale=scale)
        firing, self.tile = tileable(tile, firing, local=norm != "global"), tile
        if not time_scale > 0:
            raise InputError(f"--method.network.time_scale {time_scale}: t is divided by it, so it must be above 0; 1000 is usual")
        needed = 2 * mask_channels + image_channels + 2
        if channels < needed:
            raise InputError(
                f"{channels} channels a cell cannot hold the image, the mask, position and time; --method.network.channels must be at least {needed}"
            )
        self.channels, self.updates, self.scale = channels, updates, scale
        self.image_channels, self.mask_channels, self.dims = image_channels, mask_channels, dims
        self.time_scale, self.position, self.downsample = time_scale, position, downsample
        self.levels = nn.ModuleList(
            Automaton(
                channels,
                hidden,
                update_rate=update_rate,
                dims=dims,
                slope=0.01,
                norm=norm,
                dropout=dropout,
                attention=CBAM(channels, dims=dims) if cbam else None,
                checkpointing=checkpointing,
                firing=firing,
                arithmetic=arithmetic,
            )
            for _ in range(levels)
        )

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image, k, time = cond["image"], self.mask_channels, t.float() / self.time_scale
        self.check(image, x)
        if exact(list(self.levels), self.tile):  # type: ignore[arg-type]
            return self.windowed([image, x], time)
        given = torch.cat([image, x], 1)  # (b, image + k, *s)
        coarser: Tensor | None = None
        for depth, level in zip(reversed(range(len(self.levels))), self.levels, strict=True):  # coarsest first
            cells = level(self.seed(self.reduced(given, depth), time, coarser), self.updates)
            coarser = cells
        return Output(cells[:, :k], aux={"rgb": cells[:, k : k + self.image_channels]})

    def windowed(self, given: Sequence[Tensor], time: Tensor) -> Output:
        """The value in windows; aux["rgb"] is training's, and would be most of the memory.

        Image and x_t are of the whole image, and cut; of coarse levels all cells are held, of the finest the estimates.
        """
        cells: Tensor | None = None
        for depth, level in zip(reversed(range(len(self.levels))), self.levels, strict=True):
            maps, coarser = [self.reduced(part, depth) for part in given], cells
            space = maps[0].shape[2:]

            def born(row: int, box: Box, maps=maps, coarser=coarser, space=space) -> Tensor:  # noqa: ANN001
                here = torch.cat([part[row][(slice(None), *box.slices)] for part in maps])[None]
                below = None if coarser is None else enlarged(coarser[row], space, box.slices)[None]
                return self.seed(here, time[row : row + 1], below, ramp(space, here.device, box.slices))[0]

            kept = slice(self.mask_channels if depth == 0 else None)
            cells = evolved(level, self.updates, space, len(time), born, kept, self.tile, time.device)  # type: ignore[arg-type]
        assert cells is not None
        return Output(cells)

    def check(self, image: Tensor, x: Tensor) -> None:
        have, want = image.shape[1] + x.shape[1], self.image_channels + self.mask_channels
        if have != want or image.ndim != 2 + self.dims:
            raise InputError(
                f"this network takes {self.image_channels} image and {self.mask_channels} mask channels in {self.dims}D, "
                f"together (b, {want}, ...), got {(len(image), have, *image.shape[2:])}; set --method.network.image_channels, mask_channels or dims"
            )

    def reduced(self, given: Tensor, depth: int) -> Tensor:
        """`given` at 1 / scale^depth of its size, rounded up."""
        if depth == 0:
            return given
        size = [-(-n // self.scale**depth) for n in given.shape[2:]]
        if self.downsample == "area":
            return {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[self.dims](given, size)
        return F.interpolate(given, size=size, mode={2: "bilinear", 3: "trilinear"}[self.dims], align_corners=False)

    def seed(self, given: Tensor, time: Tensor, coarser: Tensor | None, position: Tensor | None = None) -> Tensor:
        """Cells before the first update of a level; estimate and free channels are inherited from the coarser level.

        position: of the cells given, where they are not a whole image.
        """
        k, known, space = self.mask_channels, given.shape[1], given.shape[2:]
        fixed = [time.reshape(-1, *[1] * (given.ndim - 1)).expand(-1, 1, *space)]
        if self.position:
            place = ramp(space, given.device) if position is None else position
            fixed.insert(0, place.expand(len(given), 1, *space))
        inner = self.channels - len(fixed)
        if coarser is None:
            cells = given.new_zeros(len(given), inner, *space)
        else:
            cells = F.interpolate(coarser[:, :inner], size=space, mode="nearest")
        return torch.cat([cells[:, :k], given, cells[:, k + known :], *fixed], 1)


def ramp(space: Sequence[int], device: torch.device, part: Sequence[slice] | None = None) -> Tensor:
    """(1, 1, *s): the mean over the axes of a ramp from 0 to 1, or a part of it."""
    axes = [torch.linspace(0, 1, n, device=device) for n in space]
    axes = axes if part is None else [axis[cut] for axis, cut in zip(axes, part, strict=True)]
    first, *rest = torch.meshgrid(*axes, indexing="ij")
    return (sum(rest, first) / len(axes))[None, None]
