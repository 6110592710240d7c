"""A U-Net of the size of an automaton: the honest opponent of compact cells, feed-forward and as a denoiser.

nnU-Net's U-Net (Isensee et al. 2021) from MONAI's blocks, narrow: instance norm after each 3 x 3 convolution, strides of 2, transposed
convolutions upwards. With `noised` it is a denoiser (nn.noisy).

    channels 8, 12, 16, 24, 32      66,209 weights: those of MONAI's DynUNet, name by name
    the same, noised                68,073
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from ..errors import InputError
from ..nn.noisy import Noisy
from ..nn.padding import bottomed, cropped
from ..types import Cond, Maps, Output, State, Timesteps


class Compact(Noisy):
    """`channels` names the width of each level, finest first; noised: as a denoiser. Images of any size, extended at their far edges."""

    def __init__(
        self,
        channels: Sequence[int] = (8, 12, 16, 24, 32),
        image_channels: int = 3,
        mask_channels: int = 1,
        noised: bool = False,
        dims: Literal[2, 3] = 2,
    ) -> None:
        super().__init__(image_channels, mask_channels, noised, dims)
        from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock

        if len(channels) < 2 or min(channels) < 1:
            raise InputError(
                f"--method.network.channels {list(channels)}: a U-Net has at least two levels; give the width of each, [8, 12, 16, 24, 32] say"
            )
        self.factor, norm, steps = 2 ** (len(channels) - 1), ("instance", {"affine": True}), list(pairwise(channels))
        down = [UnetBasicBlock(dims, above, below, 3, 2, norm) for above, below in steps]
        self.input_block = UnetBasicBlock(dims, self.channels_given, channels[0], 3, 1, norm)
        self.downsamples, self.bottleneck = nn.ModuleList(down[:-1]), down[-1]
        self.upsamples = nn.ModuleList(UnetUpBlock(dims, below, above, 3, 2, 2, norm) for above, below in reversed(steps))
        self.output_block = UnetOutBlock(dims, channels[0], mask_channels)
        self.apply(begun)
        self.listen(channels)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        h, told = bottomed(self.given(image, x), [self.factor] * self.dims), self.told(t)
        levels = []
        for depth, block in enumerate((self.input_block, *self.downsamples, self.bottleneck)):
            h = block(h)
            if told is not None:
                scale, shift = told[depth].view(h.shape[0], -1, *[1] * self.dims).chunk(2, 1)
                h = h * (1 + scale) + shift
            levels.append(h)
        for block, skip in zip(self.upsamples, reversed(levels[:-1]), strict=True):
            h = block(h, skip)
        return Output(cropped(self.output_block(h), image.shape[2:]))


def begun(module: nn.Module) -> None:
    """nnU-Net's start: He's normal weights for leaky ReLUs of slope 0.01, and no bias."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
