"""SegDiff (Amit et al. 2022, arXiv 2112.00390): image features of a residual-in-residual dense network, added once.

h = F(x_t) + G(I), F the U-Net's first convolution and G an RRDB network (Wang et al. 2018) at full resolution; then the
U-Net. G depends on neither x_t nor t, so it is `encode`: computed once an image, not once a step.

    MoNuSeg     256 px, 12 RRDB, mults 1 1 1 2 2 4 4, attention at 16 and 32   164,154,753 weights (the defaults)
    Vaihingen   256 px,  6 RRDB, the same U-Net                                159,838,209
    Cityscapes  128 px, 15 RRDB, mults 1 1 2 2 4 4, attention at 8 and 16      162,766,017
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.padding import cropped, extended
from ..nn.unet import UNet, conv
from ..types import Cond, Maps, Network, Output, State, Timesteps


class DenseBlock(nn.Module):
    """Five convolutions, each of everything before it; x + 0.2 of the last."""

    def __init__(self, dims: int, channels: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 6):
            self.add_module(f"conv{index}", conv(dims, channels + (index - 1) * growth, growth if index < 5 else channels))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for index, layer in enumerate(self.children(), 1):
            y = layer(torch.cat(parts, 1))
            parts.append(F.leaky_relu(y, 0.2) if index < 5 else y)
        return x + 0.2 * parts[-1]


class RRDB(nn.Module):
    """Three dense blocks in a residual of a residual."""

    def __init__(self, dims: int, channels: int, growth: int) -> None:
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = (DenseBlock(dims, channels, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.RDB3(self.RDB2(self.RDB1(x)))


class RRDBNet(nn.Module):
    """Image (b, c, *s) -> features (b, out, *s)."""

    def __init__(self, dims: int, image_channels: int, out_channels: int, blocks: int, channels: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = conv(dims, image_channels, channels)
        self.RRDB_trunk = nn.Sequential(*(RRDB(dims, channels, growth) for _ in range(blocks)))
        self.trunk_conv = conv(dims, channels, channels)
        self.HRconv = conv(dims, channels, channels)
        self.conv_last = conv(dims, channels, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        first = self.conv_first(image)
        return self.conv_last(F.leaky_relu(self.HRconv(first + self.trunk_conv(self.RRDB_trunk(first))), 0.2))


class SegDiff(Network):
    """`rrdb_blocks`, `rrdb_channels`: depth and width of the image encoder. `cache_image` False encodes the image at every step, as the published code does."""

    def __init__(
        self,
        channels: int = 128,
        mults: Sequence[int] = (1, 1, 1, 2, 2, 4, 4),
        res_blocks: int = 3,
        attention: Sequence[int] = (16, 32),
        heads: int = 4,
        rrdb_blocks: int = 12,
        dropout: float = 0.0,
        image_channels: int = 3,
        mask_channels: int = 1,
        cache_image: bool = True,
        dims: Literal[2, 3] = 2,
        rrdb_channels: int = 64,
    ) -> None:
        super().__init__()
        self.rrdb = RRDBNet(dims, image_channels, channels * mults[0], rrdb_blocks, rrdb_channels, rrdb_channels // 2)
        self.unet = UNet(mask_channels, mask_channels, channels, mults, res_blocks, attention, heads, dropout, dims)
        self.cache_image = cache_image

    def encode(self, cond: Cond) -> Cond:
        return {**cond, "features": self.features(cond)} if self.cache_image else cond

    def features(self, cond: Cond) -> Tensor:
        return self.rrdb(extended(cond["image"], self.unet.factor))

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        features = cond["features"] if "features" in cond else self.features(cond)
        out = self.unet(self.unet.stem(extended(x, self.unet.factor)) + features, t)
        return Output(cropped(out, x.shape[2:]))
