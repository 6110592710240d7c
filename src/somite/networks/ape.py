"""Anatomical positional embeddings (Sokolov et al. 2024, arXiv 2409.10291): three numbers for each voxel of a CT that say where in the
body it lies, learned from nothing but distances within scans. As a body-part regressor it tells diffusion pretraining where a patch is.

A ConvNeXt pyramid (Liu et al. 2022) over cells of 4 x 4 x 4 voxels, and a linear head. Losses are in nn/coordinates.py.

    as published 31,384,351 weights; images where -1000 .. 300 HU lies at 0 .. 1, contrast equalised, voxels of 1 x 1 x 1.5 mm

# Paper: even sizes; here: what two cells cannot share is repeated at the far edge and cut off on the way up, so any size will do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import tensors
from ..errors import InputError
from ..nn.coordinates import enlarged
from ..nn.frozen import Start
from ..nn.padding import cropped, extended
from ..nn.pyramid import Pyramid
from ..types import Cond, Maps, Network, Output, State, Timesteps

STRIDE = 4
EPS = 1e-6  # of every norm


class ChannelNorm(nn.LayerNorm):
    """Of the channels of each cell, (b, c, *s)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class LayerScale(nn.Module):
    def __init__(self, channels: int, start: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """ConvNeXt's: a 3^3 convolution of each channel, norm, and a perceptron four times as wide, scaled and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm = ChannelNorm(channels)
        self.conv_2 = nn.Conv3d(channels, 4 * channels, 1)
        self.conv_3 = nn.Conv3d(4 * channels, channels, 1)
        self.layerscale = LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layerscale(self.conv_3(F.gelu(self.conv_2(self.norm(self.conv_1(x))))))


class Blocks(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Stem(nn.Module):
    """(b, c, h, w, d) -> (b, channels, h / 4, w / 4, d / 4), whole cells alone. The last channel says which cells are seen, 1, and which
    are hidden behind a learned token, 0.
    """

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(channels - 1))
        self.conv = nn.Conv3d(image_channels, channels - 1, STRIDE, STRIDE)
        self.norm = ChannelNorm(channels - 1)

    def forward(self, image: Tensor, seen: Tensor | None = None) -> Tensor:
        x = self.norm(self.conv(image))
        seen = torch.ones_like(x[:, :1]) if seen is None else seen.to(x.dtype)
        return torch.cat([x * seen + self.mask_token.reshape(-1, 1, 1, 1) * (1 - seen), seen], 1)


class ConvNeXtFPN(nn.Module):
    """The pyramid of cells, finest first: widths[i] channels, left[i] blocks on the way down (the last are the bottom's) and right[i] on
    the way up. Parts are stored fine to coarse.
    """

    def __init__(self, image_channels: int, widths: Sequence[int], left: Sequence[int], right: Sequence[int]) -> None:
        super().__init__()
        inner = range(len(widths) - 1)
        self.stem = Stem(image_channels, widths[0])
        self.left_stages = nn.ModuleList(Blocks(widths[i], left[i]) for i in inner)
        self.middle_norms = nn.ModuleList(ChannelNorm(widths[i]) for i in inner)
        self.down_blocks = nn.ModuleList(nn.Conv3d(widths[i], widths[i + 1], 2, 2) for i in inner)
        enlarge = {"scale_factor": 2, "mode": "trilinear", "align_corners": False}
        self.up_blocks = nn.ModuleList(nn.Sequential(nn.Conv3d(widths[i + 1], widths[i], 1), nn.Upsample(**enlarge)) for i in inner)
        self.skip_connections = nn.ModuleList(nn.Conv3d(widths[i], widths[i], 1) for i in inner)
        self.right_stages = nn.ModuleList(Blocks(widths[i], right[i]) for i in inner)
        self.final_norms = nn.ModuleList(map(ChannelNorm, widths))
        self.bottom_stage = Blocks(widths[-1], left[-1])

    def forward(self, image: Tensor, seen: Tensor | None = None) -> Pyramid:
        x, sides = self.stem(image, seen), []
        for stage, norm, down in zip(self.left_stages, self.middle_norms, self.down_blocks, strict=True):
            sides.append(norm(stage(x)))
            x = down(extended(sides[-1], 2))
        maps = [self.bottom_stage(x)]
        for up, skip, stage, side in zip(*map(reversed, (self.up_blocks, self.skip_connections, self.right_stages, sides)), strict=True):
            maps.append(stage(cropped(up(maps[-1]), side.shape[2:]) + skip(side)))
        return [F.gelu(norm(cells)) for norm, cells in zip(self.final_norms, maps[::-1], strict=True)]


class Summed(nn.Module):
    """A linear map of each level, the coarser ones enlarged between cells and added; bias at the finest alone."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv3d(c, outputs, 1, bias=level == 0) for level, c in enumerate(widths))

    def forward(self, pyramid: Pyramid) -> Tensor:
        out = self.convs[-1](pyramid[-1])
        for conv, cells in zip(self.convs[-2::-1], pyramid[-2::-1], strict=True):
            larger = F.interpolate(out, scale_factor=2, mode="trilinear", align_corners=False)
            out = cropped(larger, cells.shape[2:]) + conv(cells)
        return out


class APE(Network):
    """cond["image"] (b, image_channels, h, w, d) -> coordinates (b, 3, h, w, d) of each voxel; x and t are ignored. cond["seen"], where
    there is one: which cells are not hidden (b, 1, h / 4, w / 4, d / 4), 0 or 1.

    output: "sigmoid" as published, in (0, 1), for `Distances`; "linear" for `Displacements`, whose coordinates have a unit. The defaults
    have the published size; widths 32, 64, 128, 256 with a depth of 1, 1, 3, 3 have 2.6 million weights. start: what training begins with, as
    APE's authors released it (ape.pt).
    """

    def __init__(
        self,
        widths: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (3, 3, 9, 3),
        depths_up: Sequence[int] | None = None,
        image_channels: int = 1,
        output: Literal["sigmoid", "linear"] = "sigmoid",
        start: Start | None = None,
    ) -> None:
        super().__init__()
        up = [1] * (len(widths) - 1) if depths_up is None else depths_up
        if len(widths) < 2 or len(depths) != len(widths) or len(up) != len(widths) - 1:
            raise InputError(
                f"{len(widths)} widths, {len(depths)} depths and {len(up)} depths_up of --method.network do not fit: "
                "give a depth for each width, and one less on the way up"
            )
        self.image_channels, self.output = image_channels, output
        self.fpn = ConvNeXtFPN(image_channels, widths, depths, up)
        self.head = Summed(widths, 3)
        if start is not None:
            self.start_from(Path(start.weights))

    def start_from(self, path: Path) -> None:
        found = {name.removeprefix("method.").removeprefix("network."): value for name, value in tensors(path).items()}
        own = self.state_dict()
        wrong = [name for name in own if name not in found or found[name].shape != own[name].shape]
        if wrong:
            raise InputError(f"{path} is no APE of this size (see {wrong[0]}); set --method.network.widths and depths to its own")
        self.load_state_dict({name: found[name] for name in own})

    def cells(self, image: Float[Tensor, "b c h w d"], seen: Shaped[Tensor, "b 1 hh ww dd"] | None = None) -> Float[Tensor, "b 3 hh ww dd"]:
        """Coordinates of cells of 4 x 4 x 4 voxels (whole ones; what is over at the far edges is not looked at). seen: 0 where a cell is hidden."""
        if image.shape[1] != self.image_channels or min(image.shape[2:]) < STRIDE:
            raise InputError(
                f"coordinates are found in volumes of {self.image_channels} channels and at least {STRIDE} voxels along each axis, got "
                f"{tuple(image.shape)}; set --method.network.image_channels, or give a larger patch"
            )
        out = self.head(self.fpn(image, seen))
        return out.sigmoid() if self.output == "sigmoid" else out

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        return Output(enlarged(self.cells(image, cond.get("seen")), tuple(image.shape[2:]), STRIDE))
