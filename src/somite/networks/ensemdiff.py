"""EnsemDiff (Wolleb et al. 2022, arXiv 2112.03145): guided-diffusion's U-Net with the image concatenated to the noisy mask.

The U-Net sees [image, x_t] and gives the value and, where `learn_variance`, the interpolation of the variance. With the
defaults and four MR channels it has 113,674,370 weights, and its checkpoints' names are those of its submodules.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from ..nn.padding import cropped, extended
from ..nn.unet import UNet
from ..types import Cond, Maps, Network, Output, State, Timesteps


class EnsemDiff(Network):
    """`attention`: the factors of reduction with self-attention. Other sizes than multiples of 2^(levels - 1) are extended."""

    def __init__(
        self,
        channels: int = 128,
        mults: Sequence[int] = (1, 1, 2, 2, 4, 4),
        res_blocks: int = 2,
        attention: Sequence[int] = (16,),
        heads: int = 1,
        dropout: float = 0.0,
        image_channels: int = 4,
        mask_channels: int = 1,
        learn_variance: bool = True,
        dims: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        outputs = mask_channels * (2 if learn_variance else 1)
        self.mask_channels, self.learn_variance = mask_channels, learn_variance
        self.unet = UNet(image_channels + mask_channels, outputs, channels, mults, res_blocks, attention, heads, dropout, dims)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        given = extended(torch.cat([cond["image"], x], 1), self.unet.factor)
        out = cropped(self.unet(self.unet.stem(given), t), x.shape[2:])
        if not self.learn_variance:
            return Output(out)
        return Output(out[:, : self.mask_channels], var=out[:, self.mask_channels :])
