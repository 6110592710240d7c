"""M3D-NCA: feed-forward segmentation by a pyramid of cellular automata (Kalkhof & Mukhopadhyay 2023, arXiv 2309.02954).

A cell's channels: [image (pinned) | logits | free ...]. The first automaton runs on the coarsest image; its cells are enlarged, given
the image of the next level, and handed to the automaton of that level, with weights of its own, up to full resolution. A cell perceives
through one depthwise convolution, wide at the coarse levels, whose updates are cheap, and narrow at the fine ones.

    kernel [7, 3], channels 16, hidden 64     8,768 + 3,712 = 12,480 weights (the default)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import rng
from ..errors import InputError
from ..nn.automaton import Automaton, BatchNorm, Firing, at_least_one
from ..nn.enlarge import nearest, taken
from ..nn.levels import answered, whole
from ..nn.perception import Perception
from ..nn.tiled import tileable
from ..types import Cond, Maps, Network, Output, State, Timesteps

Each = int | list[int]  # one number for all levels, or one for each, coarsest first


class M3DNCA(Network):
    """`levels`, each `scale` times as fine as the one before it; of `scale`, one number or one for each step between levels.

    patch: in training the levels but the coarsest see a random part of what the one before them saw, so many cells along each axis (a
    number, or one an axis), and the loss is of the last part alone: so memory does not grow with the volume. None: all of it.
    norm: # Paper: "batch", by the statistics of all cells of all images at hand, in training and at inference, so that an answer depends
    on what else is in the batch, and a patch is another matter than the whole; here: "cell", each cell by its own hidden units, with as
    many weights.
    firing, arithmetic, tile: at inference, as in `MedNCA`; training is always stochastic.
    """

    def __init__(
        self,
        channels: Each = 16,
        hidden: Each = 64,
        updates: Each = 10,
        kernel: Each = [7, 3],  # noqa: B006 - never changed
        levels: int = 2,
        scale: Each = 2,
        patch: Each | None = None,
        norm: Literal["cell", "batch"] = "cell",
        image_channels: int = 1,
        mask_channels: int = 1,
        update_rate: float = 0.5,
        dims: Literal[2, 3] = 3,
        checkpointing: bool = True,
        firing: Firing | None = None,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        at_least_one(levels=levels)
        firing, self.tile = tileable(tile, firing, local=norm != "batch"), tile
        self.updates, self.scales = each("updates", updates, levels), each("scale", scale, levels - 1, "steps between levels")
        widths, hiddens, kernels = (
            each(name, given, levels) for name, given in (("channels", channels), ("hidden", hidden), ("kernel", kernel))
        )
        if min(widths) < image_channels + mask_channels:
            raise InputError(
                f"{min(widths)} channels a cell cannot hold {image_channels} image and {mask_channels} mask channels; raise --method.network.channels"
            )
        self.patch = None if patch is None else each("patch", patch, dims, "axes")
        if self.patch and min(self.patch) < 2:
            raise InputError(f"--method.network.patch {patch}: a cell needs a neighbour along each axis, so give at least 2")
        self.image_channels, self.mask_channels, self.dims = image_channels, mask_channels, dims
        self.levels = nn.ModuleList(
            Automaton(
                width,
                inner,
                update_rate=update_rate,
                dims=dims,
                pinned=image_channels,
                checkpointing=checkpointing,
                firing=firing,
                arithmetic=arithmetic,
                perception=Perception(width, wide, dims, maps=1, depthwise=True),
                before={"cell": nn.LayerNorm, "batch": BatchNorm}[norm](inner),
            )
            for width, inner, wide in zip(widths, hiddens, kernels, strict=True)
        )

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        images, corner = self.pyramid(cond["image"]), None
        rules: list[Automaton] = list(self.levels)  # type: ignore[arg-type]
        if not self.training or self.patch is None:
            return Output(answered(rules, self.updates, images, self.mask_channels, self.tile))
        before, cells = images[0].shape[2:], images[0].new_zeros(len(images[0]), 0, *images[0].shape[2:])
        for at, (rule, updates, given) in enumerate(zip(rules, self.updates, images, strict=True)):
            size, part = given.shape[2:], given
            if at:
                corner, part, cells = self.part(given, cells, corner, before)
            before, cells = size, whole(rule, updates, part, cells[:, : rule.channels - self.image_channels])[:, self.image_channels :]
        return Output(cells[:, : self.mask_channels], corner=corner)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The image at each level, coarsest first: the largest value of each block of the level below it, sizes rounded up."""
        if image.shape[1] != self.image_channels or image.ndim != 2 + self.dims:
            raise InputError(
                f"this network takes images of {self.image_channels} channels in {self.dims}D, got {tuple(image.shape)}; "
                "set --data.preprocess.channels or --method.network.image_channels"
            )
        images = [image]
        for scale in reversed(self.scales):
            images.insert(0, {2: F.max_pool2d, 3: F.max_pool3d}[self.dims](images[0], scale, ceil_mode=True))
        if min(images[0].shape[2:]) < 2:
            raise InputError(
                f"images of {' x '.join(map(str, image.shape[2:]))} shrink to {' x '.join(map(str, images[0].shape[2:]))} cells at the coarsest "
                f"of {len(images)} levels, where cells have no neighbours; take fewer --method.network.levels, a smaller --method.network.scale or larger images"
            )
        return images

    def part(self, image: Tensor, cells: Tensor, corner: Tensor | None, before: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """A random patch of a level, for each row by itself: its first cell (b, d), its image, and what it inherits.

        cells: of the level before, which is `before` cells large, from `corner` on.
        """
        assert self.patch is not None
        have = cells.shape[2:]
        firsts = [[0] * len(have)] * len(image) if corner is None else corner.tolist()
        maps = [nearest(n, m, image.device) for n, m in zip(before, image.shape[2:], strict=True)]  # whose cell each cell inherits
        inside = [[((way >= a) & (way < a + n)).nonzero()[:, 0] for way, a, n in zip(maps, first, have, strict=True)] for first in firsts]
        size = [min(want, *(len(row[axis]) for row in inside)) for axis, want in enumerate(self.patch)]
        chance = rng.uniform((len(image), len(size)), image.device).tolist()
        corners, images, inherited = [], [], []
        for row, (places, first, lots) in enumerate(zip(inside, firsts, chance, strict=True)):
            starts = [int(lot * (len(place) - n + 1)) for lot, place, n in zip(lots, places, size, strict=True)]
            chosen = [place[a : a + n] for place, a, n in zip(places, starts, size, strict=True)]
            corners.append([int(place[0]) for place in chosen])
            images.append(taken(image[row], chosen))
            inherited.append(taken(cells[row], [way[place] - a for way, place, a in zip(maps, chosen, first, strict=True)]))
        return torch.tensor(corners, device=image.device), torch.stack(images), torch.stack(inherited)


def each(name: str, given: Each, count: int, of: str = "levels") -> list[int]:
    """One number for each level. Raises InputError for another length, or a number below 1."""
    found = [given] * count if isinstance(given, int) else list(given)
    if len(found) != count:
        raise InputError(f"--method.network.{name} {given}: {len(found)} numbers for {count} {of}; give one number, or one for each")
    for value in found:
        at_least_one(**{name: value})
    return found
