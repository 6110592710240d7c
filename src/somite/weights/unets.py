"""Checkpoints of the official EnsemDiff, SegDiff and MedSegDiff programs become run folders.

Those are bare state dicts whose names are our submodules' own. The architecture is read off the names and shapes; the number of
attention heads leaves no trace in them and is the published default unless given, and so are mask range, timesteps and sampler.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..recipe import build, parse, path_of
from .foreign import check_free, opened, write_run

V1, PROJECTION = "medsegdiff-v1", "hwm.emb_proj."
KINDS = ("ensemdiff", "segdiff", "medsegdiff", "medsegdiff-v1")
HEADS = {"ensemdiff": 1, "segdiff": 4, "medsegdiff": 1, "medsegdiff-v1": 1}
ORIGINS = {
    "ensemdiff": ("EnsemDiff, Wolleb et al. 2022 (arXiv 2112.03145), JuliaWolleb/Diffusion-based-Segmentation", "MIT program"),
    "segdiff": ("SegDiff, Amit et al. 2022 (arXiv 2112.00390), tomeramit/SegDiff", "no licence stated"),
    "medsegdiff": ("MedSegDiff, Wu et al. 2023 (arXiv 2211.00611), SuperMedIntel/MedSegDiff, version new", "MIT program"),
    "medsegdiff-v1": ("MedSegDiff, Wu et al. 2023 (arXiv 2211.00611), SuperMedIntel/MedSegDiff, version 1", "MIT program"),
}


def import_unet(kind: str, checkpoint: Path, out: Path, heads: int | None = None) -> Path:
    """A run folder at `out` from a checkpoint of the official program `kind`: "ensemdiff", "segdiff" or "medsegdiff".

    The recipe is the program's own way to sample (recipes KIND/official, medsegdiff/v1-official). Raises InputError if the
    file is no such checkpoint, naming what differs and what it looks like instead.

    MedSegDiff V1 draws its bottleneck projection anew at every call, saves none, and fuses by one decision for a whole batch. The
    run holds one draw, the same for every import, and decides image by image, so that answers are a function of (seed, case).
    """
    out = Path(out)
    check_free(out)
    state = {name.removeprefix("module."): value for name, value in opened(Path(checkpoint)).items()}
    found = recognised(state)
    if found is None:
        raise InputError(
            f"{checkpoint} is no checkpoint of EnsemDiff, SegDiff or MedSegDiff: its first names are {', '.join([*state][:3])}"
        )
    if found.split("-")[0] != kind:
        raise InputError(f"{checkpoint} is no {kind}: {telltale(kind, state)}; it looks like {found}: somite import {found.split('-')[0]}")
    lacking = [name for name in ("time_embed.0.weight", "out.2.weight") if name not in state]
    if lacking:
        raise InputError(f"{checkpoint} is a part of a {found} checkpoint: {lacking[0]} is missing; give the whole file")
    options = architecture(found, state) | {"heads": HEADS[found] if heads is None else heads}
    recipe, mended = ("v1-official", ["--method.readout.official=false"]) if found == V1 else ("official", [])
    config = parse(path_of(f"{kind}/{recipe}"), [*as_overrides(options), *mended])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = build(config).method
    if found == V1:
        drawn = {name.removeprefix("network."): value for name, value in method.state_dict().items() if PROJECTION in name}
        state = drawn | state
    method.load_state_dict(fitted(state, method.state_dict(), Path(checkpoint)))
    return write_run(out, config, method, [checkpoint], *ORIGINS[found])


def recognised(state: dict[str, Tensor]) -> str | None:
    names = " ".join(state)
    if "input_blocks.0.0.weight" not in state:
        return None
    if "rrdb.conv_first" in names:
        return "segdiff"
    if "hwm.ffparser" in names:
        return "medsegdiff-v1"
    return "medsegdiff" if "hwm." in names else "ensemdiff"


def telltale(kind: str, state: dict[str, Tensor]) -> str:
    """Which names tell `kind` apart from what was found."""
    expected = {"segdiff": "rrdb.", "medsegdiff": "hwm."}.get(kind)
    if expected and not any(name.startswith(expected) for name in state):
        return f"it has no {expected}* entries"
    odd = next(name for name in state if name.startswith(("rrdb.", "hwm.")))
    return f"it has entries such as {odd}"


def architecture(kind: str, state: dict[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments, read off names and shapes."""
    channels = state["time_embed.0.weight"].shape[1]
    inputs, outputs = state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]
    mults, counts, attention = [1], [0], set()
    index = 1
    while f"input_blocks.{index}.0.in_layers.2.weight" in state or f"input_blocks.{index}.0.op.weight" in state:
        if f"input_blocks.{index}.0.op.weight" in state:
            mults.append(0)
            counts.append(0)
        else:
            mults[-1] = state[f"input_blocks.{index}.0.in_layers.2.weight"].shape[0] // channels
            counts[-1] += 1
            if f"input_blocks.{index}.1.qkv.weight" in state:
                attention.add(2 ** (len(mults) - 1))
        index += 1
    options: dict[str, Any] = {"mults": mults, "res_blocks": counts[0], "attention": sorted(attention)}
    match kind:
        case "segdiff":
            trunk = {int(found[1]) for name in state if (found := re.match(r"rrdb\.RRDB_trunk\.(\d+)\.", name))}
            image = state["rrdb.conv_first.weight"].shape[1]
            return options | {"channels": channels, "rrdb_blocks": len(trunk), "image_channels": image}
        case "medsegdiff":
            return options | {"image_channels": inputs - 1, "learn_variance": outputs == 2}
        case "medsegdiff-v1":
            size = 2 * state["hwm.ffparser.0.complex_weight"].shape[1]
            return options | {
                "channels": channels,
                "image_channels": inputs - 1,
                "learn_variance": outputs == 2,
                "size": size,
                "random_projection": False,
            }
    return options | {"channels": channels, "image_channels": inputs - 1, "learn_variance": outputs == 2}


def as_overrides(options: dict[str, Any]) -> list[str]:
    settings = [f"--method.network.{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()]
    return [*settings, f"--data.preprocess.channels={options['image_channels']}"]


def fitted(state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The checkpoint under our names; what differs is said, entry by entry."""
    ours = {}
    for name in wanted:
        published = name.removeprefix("network.").removeprefix("unet.")
        if published in state:
            ours[name] = state[published]
    lacking = [name for name in wanted if name not in ours]
    over = len(state) - len(ours)
    odd = [name for name in ours if ours[name].shape != wanted[name].shape]
    if lacking or over or odd:
        first = (lacking or odd or ["(further entries)"])[0]
        raise InputError(
            f"{path} does not fit: {len(lacking)} entries are missing, {over} are not known and {len(odd)} have other shapes, {first} for one"
        )
    return ours
