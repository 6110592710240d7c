"""The names of the official SDSeg program's checkpoints (lin-tianyu/Stable-Diffusion-Seg), which are latent diffusion's.

A Lightning checkpoint's "state_dict" holds the schedule, scale_factor and three networks: `model.diffusion_model.` (the U-Net),
`cond_stage_model.` (the vision encoder) and `first_stage_model.` (the frozen autoencoder); and `model_ema.`, the U-Net's average, in
whose names no dot is left. Ours are diffusers' names, under network.unet, network.vision and codec.autoencoder.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from ..errors import InputError
from ..nn.latent_diffusion_names import FIRST_STAGE, HEADS, UNET, State, encoder_levels, kl_translated, part, unet_levels, unet_translated
from ..recipe import build, parse, path_of
from ..store import PART, START, without
from .foreign import write_run
from .importer import Asked, Importer

AVERAGE, VISION = "model_ema.", "cond_stage_model."


class SDSegImporter(Importer):
    """Sizes and the scale of latents are read off the file; a run samples as the official program evaluates, in one step from t = 999
    with the average of the U-Net. The autoencoder is the run's own, so that nothing else has to be there.
    """

    kind, system, averaged = "sdseg", "SDSeg", True
    origin = "SDSeg, Lin et al. 2024 (arXiv 2406.18361), lin-tianyu/Stable-Diffusion-Seg"
    licence = "CreativeML Open RAIL-M is the program's; of the weights that of their author"

    def recognises(self, names: Collection[str]) -> bool:
        parts = (UNET, f"{VISION}encoder.", FIRST_STAGE)
        return "scale_factor" in names and all(any(name.startswith(part) for name in names) for part in parts)

    def differs(self, names: Collection[str]) -> str:
        return f"it has no {VISION}* entries, a vision encoder's"

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        (state,), (path,) = states, paths
        heads = HEADS if asked.heads is None else asked.heads
        network, codec = architecture(state, path) | {"heads": heads}, autoencoder(state)
        recipe = parse(path_of("sdseg/paper"), as_overrides(network, codec))
        config = without(without(recipe, START), PART)  # an imported run has all its weights
        entries = translated(state, not asked.raw, heads)
        if network["classes"]:
            config, entries = one_at_a_time(config, network["classes"]), {f"method.{name}": value for name, value in entries.items()}
        with torch.random.fork_rng():
            method = build(config).method
        wanted = method.state_dict()
        odd = sorted({*entries} ^ {*wanted}) + [name for name in wanted if name in entries and entries[name].shape != wanted[name].shape]
        if odd:
            raise InputError(f"{path} does not fit: {len(odd)} entries are missing, unknown or of other shapes, {odd[0]} for one")
        method.load_state_dict({name: value.float() for name, value in entries.items()})
        return write_run(out, config, method, [path], self.origin, self.licence)


IMPORTERS = [SDSegImporter()]


def as_overrides(network: dict[str, Any], codec: dict[str, Any]) -> list[str]:
    options = {f"network.{name}": value for name, value in network.items()} | {f"codec.{name}": value for name, value in codec.items()}
    return [*(f"--method.{name}={value}" for name, value in options.items()), f"--data.preprocess.channels={network['image_channels']}"]


def architecture(state: State, path: Path) -> dict[str, Any]:
    """Arguments of `networks.sdseg.SDSeg`, all but the heads, read off names and shapes; `path` is for errors."""
    wanted = [f"{UNET}time_embed.0.weight", f"{UNET}out.2.weight", f"{VISION}encoder.conv_in.weight", f"{VISION}out.weight"]
    lacking = [name for name in wanted if name not in state]
    if lacking:
        raise InputError(f"{path} is a part of an SDSeg checkpoint: {lacking[0]} is missing; give the whole file")
    channels = state[f"{UNET}time_embed.0.weight"].shape[1]
    return {
        "channels": channels,
        **unet_levels(part(state, UNET), channels),
        **{f"encoder_{name}": value for name, value in encoder_levels(part(state, VISION)).items()},
        "latent_channels": state[f"{UNET}out.2.weight"].shape[0],
        "image_channels": state[f"{VISION}encoder.conv_in.weight"].shape[1],
        "classes": len(state.get(f"{UNET}label_emb.weight", ())),
    }


def one_at_a_time(config: Namespace, classes: int) -> Namespace:
    """The same of several classes, each asked for by itself as the program does; masks hold 0 .. classes-1."""
    config = config.clone()
    inner = Namespace(method=config.method, classes=classes, official=True)
    config.method = Namespace(class_path="somite.diffusion.classwise.OneClassAtATime", init_args=inner)
    config.data.labels = list(range(classes))
    return config


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
            raise InputError(f"the checkpoint's average lacks {len(lacking)} entries, {lacking[0]} for one; take the raw weights (--raw)")
        unet = {name: state[place] for name, place in places.items()}
    ours = {f"network.unet.{name}": value for name, value in unet_translated(unet, heads).items()}
    ours |= {f"network.vision.{name}": value for name, value in kl_translated(vision).items()}
    return ours | {f"codec.autoencoder.{name}": value for name, value in kl_translated(first).items()}
