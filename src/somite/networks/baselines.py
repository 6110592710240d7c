"""Established networks to compare with, from the libraries that keep them."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from ..errors import InputError
from ..nn.padding import cropped, extended
from ..types import Cond, Network, Output, State, Timesteps


class DynUNet(Network):
    """nnU-Net's U-Net (Isensee et al. 2021) as MONAI keeps it, 2D or 3D, with deep supervision.

    It sees the image alone: x and t are ignored, so it belongs into `FeedForward`. aux["deep"] (b, heads, k, *s) in
    training: the logits of the coarser decoder levels, enlarged. `channels` names the width of each level; each level
    after the first halves the size, and images are extended at their far edges to a multiple of that.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        image_channels: int = 3,
        mask_channels: int = 1,
        deep_heads: int = 2,
        residual: bool = False,
        dims: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        from monai.networks.nets import DynUNet as MonaiDynUNet

        levels = len(channels)
        if not 0 <= deep_heads <= levels - 2:
            raise InputError(f"deep supervision of {deep_heads} heads needs {deep_heads + 2} levels of channels, got {list(channels)}")
        self.image_channels, self.deep_heads = image_channels, deep_heads
        self.factor = 2**levels  # one halving more than there is: instance norm needs more than one place at the bottom
        self.unet = MonaiDynUNet(
            spatial_dims=dims,
            in_channels=image_channels,
            out_channels=mask_channels,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(channels),
            deep_supervision=deep_heads > 0,
            deep_supr_num=max(deep_heads, 1),
            res_block=residual,
        )

    def forward(self, x: Tensor, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        if image.shape[1] != self.image_channels:
            raise InputError(f"this network takes {self.image_channels} image channels, got {image.shape[1]}; set --method.network.image_channels or --data.preprocess.channels")
        space = image.shape[2:]
        out = self.unet(extended(image, self.factor))
        if not (self.training and self.deep_heads):
            return Output(cropped(out, space))
        return Output(cropped(out[:, 0], space), aux={"deep": cropped(out[:, 1:], space)})
