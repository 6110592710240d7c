"""The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, appendix G), from diffusers, and its encoder alone.

kl-f8, the one of Stable Diffusion v1: channels 128, mults 1 2 4 4, 2 blocks a level (3 in the decoder), one head of attention in
the middle, 4 latent channels, a reduction of 8; 83,653,863 weights. Those are the defaults everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..checkpoint import tensors
from ..errors import InputError
from .diffusers_library import diffusers_for
from .latent_diffusion_names import FIRST_STAGE, State, kl_translated, part
from .unet import check_widths

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

MULTS = (1, 2, 4, 4)
WEIGHTS = "diffusion_pytorch_model.safetensors"
TRAINED = "network.autoencoder."  # entries of a run that trained one
OLDER = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


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


def load_autoencoder(source: str | Path) -> "AutoencoderKL":
    """From a file or folder that is here; nobody's code is run.

    A folder as diffusers' `save_pretrained` writes it; one of a whole pipeline, whose `vae` is taken; a run that trained an
    autoencoder. A file (.safetensors, .ckpt, .pt, .pth) in diffusers' names or in latent diffusion's, alone or within a larger
    model, whose sizes are read off it. Raises InputError for what holds no whole AutoencoderKL.
    """
    path = Path(source)
    if path.is_file():
        return from_state(in_diffusers_names(tensors(path), path), path)
    if (path / "recipe.yaml").is_file():
        found = part(tensors(path / "weights.safetensors"), TRAINED)
        if not found:
            raise InputError(f"{path} is a run of something else than an autoencoder: none of its weights is called {TRAINED}*")
        return from_state(found, path)
    return from_folder(path / "vae" if (path / "vae" / "config.json").is_file() else path)


def in_diffusers_names(state: State, path: Path) -> State:
    """The autoencoder in a file; what else is there (a loss, a U-Net, an average) is left out."""
    inner = part(state, FIRST_STAGE) or state
    kept = {name: value for name, value in inner.items() if name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))}
    lacking = [name for name in ("encoder.conv_in.weight", "decoder.conv_in.weight", "post_quant_conv.weight") if name not in kept]
    if lacking:
        some = ", ".join([*state][:3])
        raise InputError(
            f"{path} holds no KL autoencoder: {lacking[0]} is not there (nor behind {FIRST_STAGE}), its first names are {some}; "
            "give kl-f8's file, or the folder vae of Stable Diffusion v1"
        )
    if any(name.startswith("encoder.down.") for name in kept):
        return kl_translated(kept)
    renamed = {}
    for name, value in kept.items():  # diffusers' own names were others before 2023
        older = next((one for one in OLDER if one in name), None)
        renamed[name.replace(older, OLDER[older]) if older else name] = value
    return renamed


def from_state(state: State, path: Path) -> "AutoencoderKL":
    """From entries in diffusers' names."""
    with torch.device("meta"):
        model = kl_autoencoder(**sizes(state))
    wanted = model.state_dict()
    odd = sorted({*wanted} ^ {*state}) + [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if odd:
        raise InputError(
            f"the autoencoder in {path} is not whole, or of another kind: {len(odd)} entries are missing, unknown or of other shapes, "
            f"{odd[0]} for one; copy it again from its origin"
        )
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return model


def sizes(state: State) -> dict[str, Any]:
    """Arguments of `kl_autoencoder`, read off entries in diffusers' names."""
    widths, blocks = [], 0
    while (weight := state.get(f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight")) is not None:
        widths.append(weight.shape[0])
    while f"encoder.down_blocks.0.resnets.{blocks}.conv1.weight" in state:
        blocks += 1
    channels, image_channels = state["encoder.conv_in.weight"].shape[:2]
    mults = tuple(width // channels for width in widths)
    return {
        "channels": channels,
        "mults": mults or (1,),  # without levels it is refused as not whole
        "blocks": blocks,
        "latent_channels": state["post_quant_conv.weight"].shape[0],
        "image_channels": image_channels,
    }


def from_folder(folder: Path) -> "AutoencoderKL":
    """As diffusers writes it."""
    kind = diffusers_for("a latent autoencoder").AutoencoderKL
    for name in ("config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name} is not there; give a folder of an AutoencoderKL (of Stable Diffusion v1: its folder vae), or its file"
            )
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
