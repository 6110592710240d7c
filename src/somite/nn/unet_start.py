"""Weights that a latent U-Net (`nn.adm.adm_unet`) starts training from: a published latent diffusion model's, or an exported run's."""

from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoint import tensors
from ..errors import InputError
from ..files import read_json
from .kl import WEIGHTS
from .latent_diffusion_names import UNET, State, part, unet_translated, widened


def start_unet(unet: nn.Module, source: str | Path, heads: int) -> None:
    """Give a U-Net these weights; channels of its input that they do not know start at zero.

    source: a checkpoint of an unconditional latent diffusion model (lsun_churches256) or of SDSeg, of which its raw weights are taken
    and not its average; or a folder of a UNet2DModel. Raises InputError for a U-Net of another size, saying what differs.
    """
    path, wanted = Path(source), unet.state_dict()
    found = widened(unet_state(path, heads), wanted["conv_in.weight"].shape[1])
    theirs, ours = unet_sizes(found), unet_sizes(wanted)
    differ = [f"{name} {theirs[name]} there and {ours[name]} here" for name in ours if theirs[name] != ours[name]]
    if differ:
        raise InputError(f"the U-Net in {path} is of another size: {', '.join(differ)}; give --method.network those of the file")
    odd = sorted({*wanted} ^ {*found}) + [name for name in wanted if name in found and wanted[name].shape != found[name].shape]
    if odd:
        raise InputError(f"the U-Net in {path} is of another kind: {len(odd)} entries differ from this one's, {odd[0]} for one")
    unet.load_state_dict(found)


def unet_state(path: Path, heads: int) -> State:
    """In diffusers' names."""
    if path.is_file():
        state = tensors(path)
        inner = part(state, UNET)
        if not inner:
            some = ", ".join([*state][:3])
            raise InputError(f"{path} holds no U-Net of latent diffusion: none of its entries is called {UNET}*, the first are {some}")
        found = unet_translated(inner, heads)
    else:
        folder = path / "unet" if (path / "unet" / "config.json").is_file() else path
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{path} is no folder of a UNet2DModel: it has no config.json; give one that `somite export` wrote, or a checkpoint"
            )
        kind = read_json(folder / "config.json").get("_class_name")
        if kind != "UNet2DModel":
            raise InputError(
                f"{folder} holds a {kind}, and SDSeg's U-Net is a UNet2DModel; give one that `somite export` wrote, or a checkpoint"
            )
        found = tensors(folder / WEIGHTS)
    lacking = [name for name in ("conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight") if name not in found]
    if lacking:
        raise InputError(f"the U-Net in {path} is not whole: {lacking[0]} is missing; copy it again from its origin")
    return found


def unet_sizes(state: State) -> dict[str, Any]:
    """Read off a U-Net in diffusers' names, as `networks.sdseg.SDSeg` calls them."""
    channels, widths, blocks = state["time_embedding.linear_1.weight"].shape[1], [], 0
    while (weight := state.get(f"down_blocks.{len(widths)}.resnets.0.conv1.weight")) is not None:
        widths.append(weight.shape[0])
    while f"down_blocks.0.resnets.{blocks}.conv1.weight" in state:
        blocks += 1
    return {
        "channels": channels,
        "mults": [width // channels for width in widths],
        "res_blocks": blocks,
        "attention": [2**level for level in range(len(widths)) if f"down_blocks.{level}.attentions.0.to_q.weight" in state],
        "input channels": state["conv_in.weight"].shape[1],
        "latent_channels": state["conv_out.weight"].shape[0],
    }
