"""The names of the official SDSeg program's checkpoints (lin-tianyu/Stable-Diffusion-Seg), which are latent diffusion's.

A Lightning checkpoint's "state_dict" holds the schedule, scale_factor and three networks: `model.diffusion_model.` (the U-Net),
`cond_stage_model.` (the vision encoder) and `first_stage_model.` (the frozen autoencoder); and `model_ema.`, the U-Net's average, in
whose names no dot is left. Ours are diffusers' names, under network.unet, network.vision and codec.autoencoder.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..nn.latent_diffusion_names import FIRST_STAGE, HEADS, UNET, State, encoder_levels, kl_translated, part, unet_levels, unet_translated

AVERAGE, VISION = "model_ema.", "cond_stage_model."


def recognises(names: Collection[str]) -> bool:
    """Whether a checkpoint with entries of these names is SDSeg's."""
    return "scale_factor" in names and all(any(name.startswith(part) for name in names) for part in (UNET, VISION, FIRST_STAGE))


def architecture(state: State, path: Path) -> dict[str, Any]:
    """Arguments of `networks.sdseg.SDSeg`, all but the heads, read off names and shapes; `path` is for errors."""
    wanted = [f"{UNET}time_embed.0.weight", f"{UNET}out.2.weight", f"{VISION}encoder.conv_in.weight", f"{VISION}out.weight"]
    lacking = [name for name in wanted if name not in state]
    if lacking:
        raise InputError(f"{path} is a part of an SDSeg checkpoint: {lacking[0]} is missing; give the whole file")
    if f"{UNET}label_emb.weight" in state:
        raise InputError(f"{path} is an SDSeg of several classes, whose program was never finished; import one of a binary mask")
    channels = state[f"{UNET}time_embed.0.weight"].shape[1]
    return {
        "channels": channels,
        **unet_levels(part(state, UNET), channels),
        **{f"encoder_{name}": value for name, value in encoder_levels(part(state, VISION)).items()},
        "latent_channels": state[f"{UNET}out.2.weight"].shape[0],
        "image_channels": state[f"{VISION}encoder.conv_in.weight"].shape[1],
    }


def autoencoder(state: State) -> dict[str, Any]:
    """Arguments of `diffusion.latent.Autoencoder`."""
    inner = part(state, FIRST_STAGE)
    sizes = {f"autoencoder_{name}": value for name, value in encoder_levels(inner).items()}
    return {"scale": float(state["scale_factor"]), "latent_channels": inner["post_quant_conv.weight"].shape[0], **sizes}


def translated(state: State, averaged: bool = True, heads: int = HEADS) -> State:
    """Our method's entries. averaged: the U-Net's average, which the official evaluation takes; the vision encoder has none."""
    unet, vision, first = part(state, UNET), part(state, VISION), part(state, FIRST_STAGE)
    if averaged:
        places = {name: f"{AVERAGE}diffusion_model{name.replace('.', '')}" for name in unet}
        lacking = [place for place in places.values() if place not in state]
        if lacking:
            raise InputError(
                f"the checkpoint's average lacks {len(lacking)} entries, {lacking[0]} for one; take the raw weights (averaged=False)"
            )
        unet = {name: state[place] for name, place in places.items()}
    ours = {f"network.unet.{name}": value for name, value in unet_translated(unet, heads).items()}
    ours |= {f"network.vision.{name}": value for name, value in kl_translated(vision).items()}
    return ours | {f"codec.autoencoder.{name}": value for name, value in kl_translated(first).items()}
