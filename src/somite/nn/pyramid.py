"""Feature pyramids of volumes: what a backbone gives to whoever reads its features, and the network shape that gives it.

A pyramid is a list of maps, finest first; a cell of level i is 2^i voxels (of what the backbone calls a voxel) along each axis, and
sizes are rounded up on the way down: 18 x 20 x 9 has levels of 9 x 10 x 5, 5 x 5 x 3 and 3 x 3 x 2.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..types import Cond, Network, Timesteps
from .padding import cropped

Pyramid = list[Tensor]  # (b, c_i, *s_i), finest first
Side = Literal["encoder", "decoder", "both"]  # of the way down (and the bottom), of the way up, or of both, level by level


class Backbone(Network):
    """A network whose features are of use to others. widths: channels of each level, finest first; its encoder and its decoder have
    the same, and share the bottom.
    """

    widths: Sequence[int]

    @abstractmethod
    def pyramid(self, x: Tensor, t: Timesteps, cond: Cond, side: Side = "encoder") -> Pyramid:
        """Feature maps of what `forward` takes. For "encoder" nothing of the decoder is computed."""

    @abstractmethod
    def parts(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        """What a pyramid is computed with on the way down, on the way up, and what belongs to neither."""

    def after_pretraining(self) -> None:
        """What makes the pretext hard in training, and is no part of the network, ends: asked before it is fine-tuned."""

    def channels(self, side: Side = "encoder") -> list[int]:
        """Of each level of such a pyramid: what a head is made for."""
        twice = 2 if side == "both" else 1
        return [*(twice * width for width in self.widths[:-1]), self.widths[-1]]


class FPN(nn.Module):
    """A U-Net that adds where others concatenate: `first_conv`, and at each level a stage, pooling and a 1x1x1 convolution to the next
    width; at the bottom a stage; on the way up a 1x1x1 convolution, nearest enlargement, the projected map of the way down added, a stage.

    stage: what is at a level, by its index; called with a map and whatever `told` the pyramid was asked with. Names are vox2vec's
    (arXiv 2307.14725), in which the way up is stored coarse to fine, so its released weights fit as they are.
    """

    def __init__(self, channels: int, widths: Sequence[int], stage: Callable[[int], nn.Module]) -> None:
        super().__init__()
        inner, bottom = range(len(widths) - 1), len(widths) - 1
        self.first_conv = nn.Conv3d(channels, widths[0], 3, padding=1)
        self.left_blocks = nn.ModuleList(stage(i) for i in inner)
        self.down_blocks = nn.ModuleList(
            nn.Sequential(nn.MaxPool3d(2, ceil_mode=True), nn.Conv3d(widths[i], widths[i + 1], 1)) for i in inner
        )
        self.bottom_block = stage(bottom)
        self.up_blocks, self.skip_blocks, self.right_blocks = way_up(widths, stage)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Of the way down and of the way up."""
        return [self.first_conv, self.left_blocks, self.down_blocks, self.bottom_block], [
            self.up_blocks,
            self.skip_blocks,
            self.right_blocks,
        ]

    def encoded(self, x: Tensor, *told: Tensor) -> Pyramid:
        """The maps of the way down, and the bottom."""
        x, maps = self.first_conv(x), []
        for stage, down in zip(self.left_blocks, self.down_blocks, strict=True):
            maps.append(stage(x, *told))
            x = down(maps[-1])
        return [*maps, self.bottom_block(x, *told)]

    def decoded(self, encoded: Pyramid, *told: Tensor) -> Pyramid:
        """The maps of the way up, and the bottom."""
        return risen(encoded, self.up_blocks, self.skip_blocks, self.right_blocks, *told)

    def pyramid(self, side: Side, x: Tensor, *told: Tensor) -> Pyramid:
        encoded = self.encoded(x, *told)
        if side == "encoder":
            return encoded
        decoded = self.decoded(encoded, *told)
        return decoded if side == "decoder" else [*map(beside, encoded[:-1], decoded[:-1]), encoded[-1]]


def beside(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first, second], 1)


def doubled(width: int, levels: int) -> list[int]:
    """Widths of the levels of an FPN: twice as many channels for an eighth of the cells."""
    return [width * 2**i for i in range(levels)]


def way_up(widths: Sequence[int], stage: Callable[[int], nn.Module]) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
    """The parts of a way up, coarsest first: from the level below, from the side, and the stages."""
    levels = range(len(widths) - 2, -1, -1)
    up = nn.ModuleList(nn.Sequential(nn.Conv3d(widths[i + 1], widths[i], 1), nn.Upsample(scale_factor=2)) for i in levels)
    return up, nn.ModuleList(nn.Conv3d(widths[i], widths[i], 1) for i in levels), nn.ModuleList(stage(i) for i in levels)


def risen(maps: Pyramid, up: nn.ModuleList, skip: nn.ModuleList, stages: nn.ModuleList, *told: Tensor) -> Pyramid:
    """The pyramid of a way up over `maps`; what enlarging made too much is cut off at the far edges."""
    found = [maps[-1]]
    for enlarged, beside_it, stage, side in zip(up, skip, stages, maps[-2::-1], strict=True):
        found.append(stage(cropped(enlarged(found[-1]), side.shape[2:]) + beside_it(side), *told))
    return found[::-1]


def at_voxels(pyramid: Pyramid, voxels: Int[Tensor, "b n 3"]) -> Float[Tensor, "b n c"]:
    """The features of single voxels: the cells that they lie in, of all levels, finest first."""
    rows = torch.arange(len(voxels), device=voxels.device)[:, None]
    found = []
    for level, cells in enumerate(pyramid):
        i, j, k = (voxels // 2**level).unbind(2)
        found.append(cells[rows, :, i, j, k])
    return torch.cat(found, 2)
