"""The U-Net of Dhariwal & Nichol 2021 (arXiv 2105.05233) as latent diffusion takes it, from diffusers' classes. 2D.

Time scales and shifts the second normalisation of each residual block, resampling happens within residual blocks, and every
attention has the same number of heads, whatever its width. (nn/unet.py is the older one, which only shifts and convolves.)
"""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from .diffusers_library import diffusers_for
from .unet import GROUPS, check_widths, zero


def adm_unet(
    in_channels: int,
    out_channels: int,
    channels: int = 192,
    mults: Sequence[int] = (1, 2, 2, 4, 4),
    res_blocks: int = 2,
    attention: Collection[int] = (1, 2, 4, 8),
    heads: int = 8,
    dropout: float = 0.0,
    context: int | None = None,
    classes: int = 0,
) -> nn.Module:
    """`unet(x, t).sample`, or with a context `unet(x, t, tokens).sample`; x (b, in_channels, h, w), sizes multiples of 2^(levels-1).

    attention: the factors of reduction (1, 2, 4, ...) at which attention follows each residual block; the middle has it always.
    context: the width of tokens (b, n, context) that each attention sees beside its own places. classes: with them the U-Net also takes
    class_labels (b,), whose embedding is added to the timestep's.
    """
    check_widths(channels, mults, attention, heads)
    library = diffusers_for("a latent U-Net")
    attends = [2**level in attention for level in range(len(mults))]
    widths = tuple(channels * mult for mult in mults)
    options = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "block_out_channels": widths,
        "layers_per_block": res_blocks,
        "norm_num_groups": GROUPS,
        "resnet_time_scale_shift": "scale_shift",
        "dropout": dropout,
        "num_class_embeds": classes or None,
    }
    if context is None:
        unet = library.UNet2DModel(
            **options,
            # The plain blocks would resample by a strided convolution, whatever downsample_type says.
            down_block_types=tuple("AttnDownBlock2D" if here else "ResnetDownsampleBlock2D" for here in attends),
            up_block_types=tuple("AttnUpBlock2D" if here else "ResnetUpsampleBlock2D" for here in reversed(attends)),
            downsample_type="resnet",
            upsample_type="resnet",
            attn_norm_num_groups=GROUPS,  # without it the middle attention is not normalised
            attention_head_dim=GROUPS,  # divides every width; replaced below
        )
    else:
        unet = library.UNet2DConditionModel(
            **options,
            down_block_types=tuple("SimpleCrossAttnDownBlock2D" if here else "ResnetDownsampleBlock2D" for here in attends),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=tuple("SimpleCrossAttnUpBlock2D" if here else "ResnetUpsampleBlock2D" for here in reversed(attends)),
            cross_attention_dim=context,
            attention_head_dim=tuple(width // heads for width in widths),
        )
    return zeroed(headed(unet, heads))


def headed(unet: nn.Module, heads: int) -> nn.Module:
    """With so many heads everywhere: UNet2DModel knows one width of a head for all levels instead."""
    from diffusers.models.attention_processor import Attention

    for module in unet.modules():
        if isinstance(module, Attention):
            module.heads = heads
            module.scale = (module.inner_dim / heads) ** -0.5
    return unet


def zeroed(unet: Any) -> nn.Module:  # noqa: ANN401 - either class of U-Net
    """With residual branches and the output at zero, where training from scratch starts; diffusers starts them at random."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            zero(module.conv2)
        elif isinstance(module, Attention):
            zero(module.to_out[0])  # type: ignore[index]
    zero(unet.conv_out)
    return unet
