"""A U-Net of the size of an automaton: the honest opponent of compact cells, feed-forward and as a denoiser.

nnU-Net's U-Net (Isensee et al. 2021) from MONAI's blocks, narrow: instance norm after each 3 x 3 convolution, strides of 2, transposed
convolutions upwards. With `noised` it also sees x_t, as further channels of the image, and t. A constant channel of t would say nothing,
because the first norm takes every constant away: t scales and shifts the channels of each level of the encoder instead (FiLM, Perez et al.
2018), by maps that begin at zero.

    channels 8, 12, 16, 24, 32      66,209 weights: those of MONAI's DynUNet, name by name
    the same, noised                68,073
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.conditioning import silent, sinusoid
from ..nn.padding import bottomed, cropped
from ..types import Cond, Maps, Network, Output, State, Timesteps

FREQUENCIES, EMBEDDED = 16, 8  # of a timestep: as few as telling noise levels apart takes


class Compact(Network):
    """`channels` names the width of each level, finest first. Images of any size, extended at their far edges.

    noised: whether x_t and t are seen, as diffusion needs; without it they are ignored, as feed-forward training has none.
    """

    def __init__(
        self,
        channels: Sequence[int] = (8, 12, 16, 24, 32),
        image_channels: int = 3,
        mask_channels: int = 1,
        noised: bool = False,
        dims: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock

        if len(channels) < 2 or min(channels) < 1:
            raise InputError(
                f"--method.network.channels {list(channels)}: a U-Net has at least two levels; give the width of each, [8, 12, 16, 24, 32] say"
            )
        self.image_channels, self.mask_channels, self.noised, self.dims = image_channels, mask_channels, noised, dims
        self.factor, norm, steps = 2 ** (len(channels) - 1), ("instance", {"affine": True}), list(pairwise(channels))
        given = image_channels + (mask_channels if noised else 0)
        down = [UnetBasicBlock(dims, above, below, 3, 2, norm) for above, below in steps]
        self.input_block = UnetBasicBlock(dims, given, channels[0], 3, 1, norm)
        self.downsamples, self.bottleneck = nn.ModuleList(down[:-1]), down[-1]
        self.upsamples = nn.ModuleList(UnetUpBlock(dims, below, above, 3, 2, 2, norm) for above, below in reversed(steps))
        self.output_block = UnetOutBlock(dims, channels[0], mask_channels)
        self.apply(begun)
        if noised:
            self.time = nn.Linear(FREQUENCIES, EMBEDDED)
            self.films = nn.ModuleList(nn.Linear(EMBEDDED, 2 * width) for width in channels)
            silent(*self.films)  # type: ignore[arg-type]

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        self.check(image, x)
        told = nn.functional.silu(self.time(sinusoid(t, FREQUENCIES))) if self.noised else None  # (b, EMBEDDED)
        h = bottomed(torch.cat([image, x], 1) if self.noised else image, [self.factor] * self.dims)
        levels = []
        for depth, block in enumerate((self.input_block, *self.downsamples, self.bottleneck)):
            h = block(h)
            if told is not None:
                scale, shift = self.films[depth](told).view(len(h), -1, *[1] * self.dims).chunk(2, 1)
                h = h * (1 + scale) + shift
            levels.append(h)
        for block, skip in zip(self.upsamples, reversed(levels[:-1]), strict=True):
            h = block(h, skip)
        return Output(cropped(self.output_block(h), image.shape[2:]))

    def check(self, image: Tensor, x: Tensor) -> None:
        if image.shape[1] != self.image_channels or image.ndim != 2 + self.dims or (self.noised and x.shape[1] != self.mask_channels):
            raise InputError(
                f"this network takes {self.image_channels} image and {self.mask_channels} mask channels in {self.dims}D, got "
                f"{tuple(image.shape)} and {tuple(x.shape)}; set --method.network.image_channels, mask_channels or dims"
            )


def begun(module: nn.Module) -> None:
    """nnU-Net's start: He's normal weights for leaky ReLUs of slope 0.01, and no bias."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
