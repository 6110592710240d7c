"""Heads that read a pyramid, as vox2vec's authors probe with (arXiv 2307.14725), and DDPM-Seg's: no cell sees its neighbours, so that what is
scored are the features. Maps (b, c_i, *s_i), finest first -> (b, outputs, *s_0). channels: the c_i, times the timesteps where several are concatenated.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .padding import cropped
from .pyramid import Pyramid, risen, way_up

Head = Literal["linear", "non-linear", "pixel"]
SLAB = 2**16  # voxels that a `PixelHead` reads at a time where no gradient is asked for


class Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), batch norms."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            # in place, because a norm's output is nobody else's
            return [nn.BatchNorm3d(channels), nn.ReLU(inplace=True), nn.Conv3d(channels, channels, kernel, padding=kernel // 2)]

        self.layers = nn.Sequential(*half(), *half())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class LinearHead(nn.Module):
    """One linear map of all that a voxel's cells hold, (sum of channels) outputs + outputs weights: a map a level, the coarser ones
    enlarged to the nearest cell and added, which is the same and needs no enlarged features.
    """

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv3d(c, outputs, 1, bias=level == 0) for level, c in enumerate(channels))

    def forward(self, pyramid: Pyramid) -> Tensor:
        out = self.layers[-1](pyramid[-1])
        for layer, cells in zip(self.layers[-2::-1], pyramid[-2::-1], strict=True):
            out = cropped(F.interpolate(out, scale_factor=2), cells.shape[2:]) + layer(cells)
        return out


class NonLinearHead(nn.Module):
    """An FPN of 1x1x1 convolutions alone, with one residual block a level."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.bottom_block = Residual(channels[-1], 1)
        self.up_blocks, self.skip_blocks, self.right_blocks = way_up(channels, lambda level: Residual(channels[level], 1))
        self.final_block = nn.Conv3d(channels[0], outputs, 1)

    def forward(self, pyramid: Pyramid) -> Tensor:
        maps = [*pyramid[:-1], self.bottom_block(pyramid[-1])]
        return self.final_block(risen(maps, self.up_blocks, self.skip_blocks, self.right_blocks)[0])


class PixelHead(nn.Module):
    """DDPM-Seg's classifier of single pixels (Baranchuk et al. 2022, arXiv 2112.03126): what a voxel's cells hold at all levels, between the
    middles of cells, through a perceptron of 128 and 32 units, of 30 classes or more 256 and 128. It has a vector of all channels for each
    voxel in memory, in training of the whole patch.
    """

    # Paper: ten of them vote; here: one, and several runs answer together by `--with`.

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        first, second = (128, 32) if outputs < 30 else (256, 128)
        self.layers = nn.Sequential(
            *(nn.Linear(sum(channels), first), nn.ReLU(), nn.BatchNorm1d(first)),
            *(nn.Linear(first, second), nn.ReLU(), nn.BatchNorm1d(second)),
            nn.Linear(second, outputs),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, pyramid: Pyramid) -> Tensor:
        rows = collected(pyramid).movedim(1, -1)
        parts = [rows.flatten(0, -2)] if self.training else rows.flatten(0, -2).split(SLAB)
        out = torch.cat([self.layers(part) for part in parts])
        return out.unflatten(0, rows.shape[:-1]).movedim(-1, 1)


def collected(pyramid: Pyramid) -> Tensor:
    """All levels at the finest one's size, one after the other: linear between the middles of cells, in 2D and 3D."""
    space = tuple(pyramid[0].shape[2:])
    mode = "bilinear" if len(space) == 2 else "trilinear"
    larger = [cells if tuple(cells.shape[2:]) == space else F.interpolate(cells, size=space, mode=mode) for cells in pyramid]
    return torch.cat(larger, 1)


HEADS = {"linear": LinearHead, "non-linear": NonLinearHead, "pixel": PixelHead}


def head_for(kind: Head, channels: Sequence[int], outputs: int) -> nn.Module:
    return HEADS[kind](channels, outputs)
