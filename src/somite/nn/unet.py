"""The U-Net of improved-diffusion and guided-diffusion (Nichol & Dhariwal 2021; Dhariwal & Nichol 2021), in 2D and 3D.

EnsemDiff, SegDiff and MedSegDiff all build on it. Submodules carry the names that published checkpoints use, so that an
import is a renaming of nothing. `stem`, `down`, `middle` and `up` are apart, because papers add image features in between:

    h = stem(x);  skips = down(h, e);  h = middle(skips[-1], e);  value = up(h, skips, e),   e = embed(t)
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..types import Timesteps

GROUPS = 32  # of normalisation


def conv(dims: int, c_in: int, c_out: int, kernel: int = 3, **options: int) -> nn.Module:
    """A convolution that keeps the size (at stride 1)."""
    return {2: nn.Conv2d, 3: nn.Conv3d}[dims](c_in, c_out, kernel, padding=kernel // 2, **options)


def zero(module: nn.Module) -> nn.Module:
    """Start at zero: residual branches and outputs."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def sinusoid(t: Timesteps, width: int) -> Tensor:
    """(b,) -> (b, width): cosines, then sines, of t / 10000^(i / (width / 2)) (Vaswani et al. 2017)."""
    half = width // 2
    freq = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * freq
    return torch.cat([angle.cos(), angle.sin()], -1)


class Norm(nn.GroupNorm):
    """Group norm in float32, whatever the precision around it."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


class ResBlock(nn.Module):
    """x + conv(norm(conv(norm(x)) + W e)), SiLU before each convolution; the second starts at zero."""

    def __init__(self, dims: int, c_in: int, c_out: int, width: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(Norm(c_in), nn.SiLU(), conv(dims, c_in, c_out))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, c_out))
        self.out_layers = nn.Sequential(Norm(c_out), nn.SiLU(), nn.Dropout(dropout), zero(conv(dims, c_out, c_out)))
        self.skip_connection = nn.Identity() if c_in == c_out else conv(dims, c_in, c_out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        shift = self.emb_layers(e)
        h = self.in_layers(x) + shift.reshape(*shift.shape, *[1] * (x.ndim - 2))
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    """Self-attention over all places, residual. Channels are split into heads first and into q, k, v within each."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        b, c, *_ = x.shape
        flat = x.flatten(2)
        q, k, v = self.qkv(self.norm(flat)).reshape(b, self.heads, 3, c // self.heads, -1).transpose(-1, -2).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (b, heads, n, c / heads)
        return x + self.proj_out(mixed.transpose(-1, -2).reshape(b, c, -1)).view_as(x)


class Down(nn.Module):
    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.op = conv(dims, channels, channels, stride=2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = conv(dims, channels, channels)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Sequential):
    """Blocks in a row, each given the embedding."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:  # type: ignore[override]
        for block in self:
            x = block(x, e)
        return x


def check_widths(channels: int, mults: Sequence[int], attention: Collection[int], heads: int) -> None:
    """Raises InputError where normalisation or attention could not divide the channels of a level."""
    widths = [mult * channels for mult in mults]
    odd = next((width for width in widths if width < 1 or width % GROUPS), None)
    if odd is not None:
        raise InputError(
            f"channels {channels} with mults {list(mults)} give a level of {odd}, which is no multiple of {GROUPS}; choose channels such as 32 or 64"
        )
    for level, width in enumerate(widths):
        if (2**level in attention or level == len(widths) - 1) and (heads < 1 or width % heads):
            raise InputError(f"heads {heads} does not divide the {width} channels that attention sees; choose a divisor, such as 1 or 4")


class UNet(nn.Module):
    """`attention` lists the factors of reduction (1, 2, 4, ...) at which attention follows each residual block."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int = 128,
        mults: Sequence[int] = (1, 1, 2, 2, 4, 4),
        res_blocks: int = 2,
        attention: Collection[int] = (16,),
        heads: int = 1,
        dropout: float = 0.0,
        dims: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        check_widths(channels, mults, attention, heads)
        width = 4 * channels
        self.channels, self.factor = channels, 2 ** (len(mults) - 1)
        self.time_embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

        def stage(c_in: int, c_out: int, reduction: int) -> list[nn.Module]:
            attend = [Attention(c_out, heads)] if reduction in attention else []
            return [ResBlock(dims, c_in, c_out, width, dropout), *attend]

        first = mults[0] * channels
        self.input_blocks = nn.ModuleList([nn.Sequential(conv(dims, in_channels, first))])
        kept, now = [first], first
        for level, mult in enumerate(mults):
            for _ in range(res_blocks):
                self.input_blocks.append(Stage(*stage(now, mult * channels, 2**level)))
                now = mult * channels
                kept.append(now)
            if level < len(mults) - 1:
                self.input_blocks.append(Stage(Down(dims, now)))
                kept.append(now)
        self.middle_block = Stage(ResBlock(dims, now, now, width, dropout), Attention(now, heads), ResBlock(dims, now, now, width, dropout))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for block in range(res_blocks + 1):
                parts = stage(now + kept.pop(), mult * channels, 2**level)
                now = mult * channels
                if level and block == res_blocks:
                    parts.append(Up(dims, now))
                self.output_blocks.append(Stage(*parts))
        self.out = nn.Sequential(Norm(now), nn.SiLU(), zero(conv(dims, now, out_channels)))

    def embed(self, t: Timesteps) -> Tensor:
        return self.time_embed(sinusoid(t, self.channels))

    def stem(self, x: Tensor) -> Tensor:
        return self.input_blocks[0](x)

    def down(self, h: Tensor, e: Tensor) -> list[Tensor]:
        """Features after each input block, the stem's first."""
        skips = [h]
        for block in self.input_blocks[1:]:
            skips.append(block(skips[-1], e))
        return skips

    def middle(self, h: Tensor, e: Tensor) -> Tensor:
        return self.middle_block(h, e)

    def up(self, h: Tensor, skips: Sequence[Tensor], e: Tensor) -> Tensor:
        for block, skip in zip(self.output_blocks, reversed(skips), strict=True):
            h = block(torch.cat([h, skip], 1), e)
        return self.out(h)

    def forward(self, h: Tensor, t: Timesteps) -> Tensor:
        """From the stem's features to the output, nothing in between."""
        e = self.embed(t)
        skips = self.down(h, e)
        return self.up(self.middle(skips[-1], e), skips, e)
