"""The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, appendix G), from diffusers, and its encoder alone.

kl-f8, the one of Stable Diffusion v1: channels 128, mults 1 2 4 4, 2 blocks a level (3 in the decoder), one head of attention in
the middle, 4 latent channels, a reduction of 8; 83,653,863 weights. Those are the defaults everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ..errors import InputError
from .diffusers_library import diffusers_for
from .unet import check_widths

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

MULTS = (1, 2, 4, 4)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def kl_autoencoder(
    channels: int = 128, mults: Sequence[int] = MULTS, blocks: int = 2, latent_channels: int = 4, image_channels: int = 3
) -> "AutoencoderKL":
    """Of random weights. `encode(x).latent_dist` is the posterior of (b, image_channels, h, w), `decode(z).sample` its inverse."""
    check_widths(channels, mults, (), 1)
    return diffusers_for("a latent autoencoder").AutoencoderKL(
        in_channels=image_channels,
        out_channels=image_channels,
        down_block_types=("DownEncoderBlock2D",) * len(mults),
        up_block_types=("UpDecoderBlock2D",) * len(mults),
        block_out_channels=tuple(channels * mult for mult in mults),
        layers_per_block=blocks,
        latent_channels=latent_channels,
    )


def kl_encoder(
    channels: int = 128,
    mults: Sequence[int] = MULTS,
    blocks: int = 2,
    latent_channels: int = 4,
    image_channels: int = 3,
    dropout: float = 0.0,
) -> nn.Module:
    """The encoder alone: (b, image_channels, h, w) -> (b, 2 latent_channels, h / f, w / f), f = `reduction(mults)`.

    dropout: within its residual blocks. The class of diffusers has no such argument, so it is set afterwards.
    """
    check_widths(channels, mults, (), 1)
    diffusers_for("a latent encoder")
    from diffusers.models.autoencoders.vae import Encoder

    encoder = Encoder(
        in_channels=image_channels,
        out_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * len(mults),
        block_out_channels=tuple(channels * mult for mult in mults),
        layers_per_block=blocks,
    )
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return encoder


def reduction(mults: Sequence[int]) -> int:
    """By how much latents are smaller than images, along each axis."""
    return 2 ** (len(mults) - 1)


def load_autoencoder(folder: str | Path) -> "AutoencoderKL":
    """From a local folder as diffusers' `save_pretrained` writes it: config.json and diffusion_pytorch_model.safetensors.

    Nothing is downloaded and no pickle is opened. Raises InputError for a folder that holds no whole AutoencoderKL.
    """
    kind, folder = diffusers_for("a latent autoencoder").AutoencoderKL, Path(folder)
    for name in ("config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is not there; give a folder of an AutoencoderKL (of Stable Diffusion v1: its folder vae)")
    named = kind.load_config(folder, local_files_only=True).get("_class_name", kind.__name__)
    if named != kind.__name__:
        raise InputError(f"{folder} holds a {named}; give the folder of an {kind.__name__}")
    try:
        model, told = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:  # what a damaged file or a tensor of another shape raises
        first = str(error).strip().splitlines()[0]
        raise InputError(f"the autoencoder in {folder} cannot be read ({first}); copy it again from its origin") from error
    lacking = [*told["missing_keys"], *told["unexpected_keys"]]  # diffusers fills what is missing with random numbers
    if lacking:
        raise InputError(
            f"the autoencoder in {folder} is not whole: {lacking[0]} and {len(lacking) - 1} further entries are missing or unknown; "
            "copy it again from its origin"
        )
    return model
