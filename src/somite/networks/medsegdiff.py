"""MedSegDiff (Wu et al. 2023, arXiv 2211.00611) as its repository runs it: two designs, both with an image U-Net beside.

The diffusion U-Net sees [image, x_t]. An image U-Net of nnU-Net's first version (the "highway", hwm) is trained to segment
by itself, aux["cal"], and gives features to the diffusion U-Net:

- `MedSegDiff`, the repository's default ("new"): the highway sees the image alone; two levels of its decoder are added,
  detached, to the features of the diffusion U-Net's first convolution. 129,400,450 weights.
- `MedSegDiffV1`: features of the diffusion U-Net, filtered in Fourier space (FF-Parser), gate the highway's encoder, whose
  bottleneck is added to the diffusion U-Net's. 130,527,814 weights as published.
  # Repository: the bottleneck passes a convolution whose weights are drawn anew at every call; here: registered and
  # trained, 246,272 weights more, because noise is no condition. `random_projection` repeats the original.

Three answers come out of one sampling, and are reported apart: the sample, the highway's map, and their fusion (`diffusion.readout`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..nn.padding import cropped, extended
from ..nn.unet import UNet
from ..types import Cond, Maps, Network, Output, State, Timesteps

WIDTHS = (32, 64, 128, 256, 480)


class Layer(nn.Module):
    """Convolution, dropout of whole maps, batch norm, leaky ReLU. The norm's published name is `instnorm`."""

    def __init__(self, c_in: int, c_out: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)
        self.instnorm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.instnorm(self.dropout(self.conv(x))), 0.01)


class Layers(nn.Module):
    def __init__(self, *widths: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Layer(a, b, dropout) for a, b in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Highway(nn.Module):
    """A U-Net of five poolings on the image, with dropout on the way down."""

    def __init__(self, image_channels: int, mask_channels: int, dropout: float, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        inputs = (image_channels, *widths)
        self.conv_blocks_context = nn.ModuleList(Layers(a, b, b, dropout=dropout) for a, b in zip(inputs, widths, strict=False))
        deepest = widths[-1]
        self.conv_blocks_context.append(nn.Sequential(Layers(deepest, deepest, dropout=dropout), Layers(deepest, deepest, dropout=dropout)))
        self.conv_blocks_localization = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width, after = widths[level], widths[max(level - 1, 0)]
            self.conv_blocks_localization.append(nn.Sequential(Layers(2 * width, width, dropout=0.0), Layers(width, after, dropout=0.0)))
        self.seg_outputs = nn.ModuleList([nn.Conv2d(widths[0], mask_channels, 1, bias=False)])

    def decode(self, x: Tensor, skips: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The map in [0, 1], and the features after each decoder level, coarsest first."""
        features = []
        for block, skip in zip(self.conv_blocks_localization, reversed(skips), strict=True):
            x = block(torch.cat([enlarged(x, 2), skip], 1))
            features.append(x)
        return self.seg_outputs[0](x).sigmoid(), features

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, skips = image, []
        for block in self.conv_blocks_context[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        return self.decode(self.conv_blocks_context[-1](x), skips)


def enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


class MedSegDiff(Network):
    """The repository's default. `base`: width of the highway's first level; the diffusion U-Net's is four times as wide.

    The highway's anchors have base, base and 2 base channels and are added to the U-Net's first features: 128 as published.
    """

    def __init__(
        self,
        mults: Sequence[int] = (1, 1, 2, 2, 4, 4),
        res_blocks: int = 2,
        attention: Sequence[int] = (16,),
        heads: int = 1,
        dropout: float = 0.0,
        highway_dropout: float = 0.5,
        image_channels: int = 3,
        learn_variance: bool = True,
        base: int = WIDTHS[0],
    ) -> None:
        super().__init__()
        self.learn_variance = learn_variance
        self.unet = UNet(image_channels + 1, 1 + learn_variance, 4 * base, mults, res_blocks, attention, heads, dropout)
        self.hwm = Highway(image_channels, 1, highway_dropout, [width * base // WIDTHS[0] for width in WIDTHS])
        self.factor = max(2 ** len(WIDTHS), self.unet.factor)

    def encode(self, cond: Cond) -> Cond:
        """The highway sees the image alone: once a case, not once a step."""
        cal, features = self.hwm(extended(cond["image"], self.factor))
        fine, coarse = enlarged(features[3], 2), enlarged(features[2], 4)
        return {**cond, "cal": cropped(cal, cond["image"].shape[2:]), "anchors": torch.cat([fine, fine, coarse], 1).detach()}

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        stem = self.unet.stem(extended(torch.cat([cond["image"], x], 1), self.factor)) + cond["anchors"]
        return split(cropped(self.unet(stem, t), x.shape[2:]), cond["cal"], self.learn_variance)


class MedSegDiffV1(Network):
    """Version 1. `size` is the side that the Fourier filters are made for; other sizes interpolate them.

    What comes out of each of the diffusion U-Net's first four halvings gates the highway's encoder.
    """

    hwm: Any  # a Highway that also carries the gates, under their published names

    def __init__(
        self,
        channels: int = 128,
        mults: Sequence[int] = (1, 1, 2, 2, 4, 4),
        res_blocks: int = 2,
        attention: Sequence[int] = (16,),
        heads: int = 1,
        dropout: float = 0.0,
        highway_dropout: float = 0.5,
        image_channels: int = 3,
        size: int = 256,
        learn_variance: bool = True,
        random_projection: bool = False,
    ) -> None:
        super().__init__()
        if len(mults) < 5:
            raise InputError(f"MedSegDiffV1 gates four levels of its highway and needs at least 5 levels, got mults {list(mults)}")
        self.learn_variance, self.random_projection = learn_variance, random_projection
        self.unet = UNet(image_channels + 1, 1 + learn_variance, channels, mults, res_blocks, attention, heads, dropout)
        self.hwm = Highway(image_channels, 1, highway_dropout)
        self.factor = max(2 ** len(WIDTHS), self.unet.factor)
        self.gates = [(level + 1) * (res_blocks + 1) for level in range(4)]  # the input blocks that halve the size
        widths = [mults[level] * channels for level in range(4)]
        self.hwm.conv_trans_blocks_a = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(widths, WIDTHS, strict=False))
        self.hwm.conv_trans_blocks_b = nn.ModuleList(nn.Conv2d(w, 1, 1) for w in WIDTHS[:4])
        self.hwm.ffparser = nn.ModuleList(FFParser(w, size // 2 ** (level + 1)) for level, w in enumerate(WIDTHS[:4]))
        self.deepest = mults[-1] * channels
        if not random_projection:
            self.hwm.emb_proj = nn.Conv2d(WIDTHS[-1], self.deepest, 1)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        given = extended(torch.cat([cond["image"], x], 1), self.factor)
        image = given[:, :-1]
        e = self.unet.embed(t)
        skips = self.unet.down(self.unet.stem(given), e)
        bottleneck, context = self.gated([skips[index] for index in self.gates], image)
        cal, _ = self.hwm.decode(bottleneck, context)
        project = nn.Conv2d(WIDTHS[-1], self.deepest, 1).to(x.device) if self.random_projection else self.hwm.emb_proj
        anchor = F.interpolate(project(bottleneck), size=skips[-1].shape[2:], mode="bilinear", align_corners=False)
        out = self.unet.up(self.unet.middle(skips[-1] + anchor, e), skips, e)
        space = x.shape[2:]
        return split(cropped(out, space), cropped(cal, space), self.learn_variance)

    def gated(self, gates: Sequence[Tensor], image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The highway's encoder; after each of its first four poolings the diffusion features say what matters."""
        x, context = image, []
        for level, block in enumerate(self.hwm.conv_blocks_context[:-1]):
            context.append(block(x))
            x = F.max_pool2d(context[-1], 2)
            if level < 4:
                h = self.hwm.ffparser[level](self.hwm.conv_trans_blocks_a[level](gates[level]))
                x = x * self.hwm.conv_trans_blocks_b[level](h) * h.mean((2, 3), keepdim=True)
        return self.hwm.conv_blocks_context[-1](x), context


class FFParser(nn.Module):
    """Features times a learned complex map in Fourier space, M' = A M (arXiv 2211.00611, section 3.3); small at the start."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.complex_weight = nn.Parameter(0.02 * torch.randn(channels, size, size // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        m = torch.fft.rfft2(x.float(), norm="ortho")
        weight = self.complex_weight
        if m.shape[2:] != weight.shape[1:3]:
            weight = F.interpolate(weight.movedim(-1, 0), size=m.shape[2:], mode="bilinear", align_corners=True).movedim(0, -1)
        return torch.fft.irfft2(m * torch.view_as_complex(weight.contiguous()), s=x.shape[2:], norm="ortho").to(x.dtype)


def split(out: Tensor, cal: Tensor, learn_variance: bool) -> Output:
    return Output(out[:, :1], var=out[:, 1:] if learn_variance else None, aux={"cal": cal})
