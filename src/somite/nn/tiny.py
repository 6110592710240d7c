"""A decoder of latents with a fortieth of the weights of the KL autoencoder's: the one of TAESD, `AutoencoderTiny` in diffusers."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError
from .diffusers_library import diffusers_for

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

NAMED, PREFIX = "somite.networks.autoencoder.TinyDecoder", "network.tiny."


class Tiny(nn.Module):
    """Latents (b, latent_channels, h, w), unscaled -> images (b, image_channels, f h, f w), f = 2^(levels - 1), about [-1, 1].

    width: of every layer. blocks: residual blocks a level, one at the last (1,222,595 weights at the defaults of TAESD).
    The layers want latents of a standard deviation of about 1, so these are scaled by that of the first training batch.
    """

    scale: Tensor

    def __init__(self, latent_channels: int = 4, image_channels: int = 3, levels: int = 4, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        diffusers_for("a tiny decoder")
        from diffusers.models.autoencoders.vae import DecoderTiny

        self.layers = DecoderTiny(
            in_channels=latent_channels,
            out_channels=image_channels,
            num_blocks=(*[blocks] * (levels - 1), 1),
            block_out_channels=(width,) * levels,
            upsampling_scaling_factor=2,
            act_fn="relu",
            upsample_fn="nearest",
        )
        self.register_buffer("scale", torch.tensor(math.nan))

    def forward(self, z: Tensor) -> Tensor:
        if self.training and self.scale.isnan():
            self.scale.copy_(1 / z.detach().float().std())
        return self.layers(self.scale * z)


def sizes(autoencoder: "AutoencoderKL") -> dict[str, int]:
    """Arguments of a `Tiny` that decodes this autoencoder's latents."""
    config: Any = autoencoder.config
    return {
        "latent_channels": config.latent_channels,
        "image_channels": config.out_channels,
        "levels": len(config.block_out_channels),
    }


def decoder_of(run: str | Path, autoencoder: "AutoencoderKL") -> Tiny:
    """The decoder that a run of `autoencoder/tiny` trained. Raises InputError for another run, or one of other latents."""
    run = Path(run)
    for name in ("recipe.yaml", "weights.safetensors"):
        if not (run / name).is_file():
            raise InputError(f"{run / name} is not there; give a run of `somite train autoencoder/tiny` as --method.codec.decoder.source")
    network = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["method"]["init_args"].get("network", {})
    if network.get("class_path") != NAMED:
        raise InputError(f"{run} is no run of a tiny decoder; somite train autoencoder/tiny makes one")
    options = {name: network["init_args"][name] for name in ("width", "blocks")}
    tiny = Tiny(**sizes(autoencoder), **options)
    state = {name.removeprefix(PREFIX): value for name, value in load_file(run / "weights.safetensors").items() if name.startswith(PREFIX)}
    try:
        tiny.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{run} decodes latents of another size than this autoencoder's; train a tiny decoder for this one") from error
    return tiny
