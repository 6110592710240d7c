"""Established networks to compare with, from the libraries that keep them."""

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor, nn

from ..errors import InputError
from ..nn.padding import bottomed, cropped
from ..types import Cond, Maps, Network, Output, State, Timesteps


class DynUNet(Network):
    """nnU-Net's U-Net (Isensee et al. 2021) as MONAI keeps it, 2D or 3D, with deep supervision.

    It sees the image alone: x and t are ignored, so it belongs into `FeedForward`. aux["deep"] (b, heads, k, *s) in
    training: the logits of the coarser decoder levels, enlarged. `channels` names the width of each level.

    deep_heads: how many coarser levels have a head; None: all but the full resolution's, as in nnU-Net. idle_heads: of them
    the coarsest, which are there and never trained nor in aux["deep"] (nnU-Net gives its last head the weight 0).
    strides, kernels: of each level, a number for all axes or one an axis; None: 1, 2, 2 ... and 3, 3, 3 ...
    Images are extended at their far edges to a multiple of the product of the strides.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        image_channels: int = 3,
        mask_channels: int = 1,
        deep_heads: int | None = 2,
        residual: bool = False,
        dims: Literal[2, 3] = 2,
        strides: Sequence[int | list[int]] | None = None,
        kernels: Sequence[int | list[int]] | None = None,
        idle_heads: int = 0,
    ) -> None:
        super().__init__()
        from monai.networks.nets import DynUNet as MonaiDynUNet

        levels = len(channels)
        heads = max(levels - 2, 0) if deep_heads is None else deep_heads
        if not 0 <= heads <= max(levels - 2, 0):
            raise InputError(f"deep supervision of {heads} heads needs {heads + 2} levels of channels, got {list(channels)}")
        if not 0 <= idle_heads <= heads:
            raise InputError(f"--method.network.idle_heads {idle_heads}: this network has {heads} deep heads; give 0 to {heads}")
        steps = by_axis("strides", strides or [1] + [2] * (levels - 1), levels, dims)
        self.image_channels, self.deep_heads, self.trained_heads = image_channels, heads, heads - idle_heads
        self.factors = [prod(along) for along in zip(*steps, strict=True)]
        self.unet = MonaiDynUNet(
            spatial_dims=dims,
            in_channels=image_channels,
            out_channels=mask_channels,
            kernel_size=by_axis("kernels", kernels or [3] * levels, levels, dims),
            strides=steps,
            upsample_kernel_size=steps[1:],
            filters=list(channels),
            deep_supervision=heads > 0,
            deep_supr_num=max(heads, 1),
            res_block=residual,
        )
        if heads:
            for head in self.unet.deep_supervision_heads[self.trained_heads :]:
                head.requires_grad_(False)  # a parameter that no loss sees would stop distributed training
        # MONAI registers its layers a second time, as the nested `skip_layers` that run them: each weight is stored once.
        self.unet.register_state_dict_post_hook(without_twins)
        self.unet.register_load_state_dict_pre_hook(with_twins)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        if image.shape[1] != self.image_channels:
            raise InputError(
                f"this network takes {self.image_channels} image channels, got {image.shape[1]}; set --method.network.image_channels or --data.preprocess.channels"
            )
        space = image.shape[2:]
        out = self.unet(bottomed(image, self.factors))
        if not (self.training and self.deep_heads):
            return Output(cropped(out, space))
        return Output(cropped(out[:, 0], space), aux={"deep": cropped(out[:, 1 : 1 + self.trained_heads], space)})


def by_axis(name: str, given: Sequence[int | Sequence[int]], levels: int, dims: int) -> list[list[int]]:
    """One number an axis for each level."""
    out = [[one] * dims if isinstance(one, int) else list(one) for one in given]
    if len(out) != levels or any(len(one) != dims for one in out):
        raise InputError(
            f"--method.network.{name} {list(given)}: give one for each of the {levels} levels of channels, a number or {dims} of them"
        )
    return out


TWINS = "skip_layers."


def without_twins(unet: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(prefix + TWINS)]:
        del state[name]


def with_twins(unet: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give each twin the value of the first name of the same parameter."""
    first: dict[int, str] = {}
    for name, parameter in unet.named_parameters(remove_duplicate=False):
        if not name.startswith(TWINS):
            first[id(parameter)] = name
    for name, parameter in unet.named_parameters(remove_duplicate=False):
        if name.startswith(TWINS) and prefix + first[id(parameter)] in state:
            state[prefix + name] = state[prefix + first[id(parameter)]]
