"""Checkpoints of DiT in the layout of its release (facebookresearch/DiT), and of GeCA's program, whose baseline it is.

DiT looks its one label up in a table whose last row stands for none; ours is two linear maps, to which a table is translated exactly: the
first holds each row's difference from the last, the second changes nothing. How many heads there are leaves no trace.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..nn.conditioning import grid_positions
from ..recipe import build, parse, path_of
from .foreign import write_run
from .importer import Importer, State
from .unets import fitted

ORIGIN = "DiT, Peebles & Xie 2023 (arXiv 2212.09748), facebookresearch/DiT"
LICENCE = "CC BY-NC 4.0, if these are the files released there; otherwise that of their author"
RECIPE = "dit/official"
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # as published, by width
MARKS = {"x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "final_layer.linear.weight", "t_embedder.mlp.0.weight"}
TABLE, LABELS = "y_embedder.embedding_table.weight", "y_embedder.embedding_table.0.weight"


class DiTImporter(Importer):
    kind, system = "dit", "DiT"

    def recognises(self, names: Collection[str]) -> bool:
        return {*names} >= MARKS

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, heads: int | None) -> Path:
        (state,), (path,) = states, paths
        options = architecture(state, path, heads)
        settings = [f"--method.network.network.{name}={str(value).lower()}" for name, value in options.items()]
        method = build(config := parse(path_of(RECIPE), settings)).method
        ours = {f"network.network.{name}": value for name, value in translated(state, path).items()}
        rest = {name: value for name, value in method.state_dict().items() if not name.startswith("network.")}  # the codec's own
        method.load_state_dict(fitted(ours | rest, method.state_dict(), path))
        return write_run(out, config, method, [path], ORIGIN, LICENCE)


def architecture(state: State, path: Path, heads: int | None = None) -> dict[str, Any]:
    """Arguments of `networks.dit.DiT`, read off names and shapes; `path` is for errors."""
    width, channels, patch = state["x_embedder.proj.weight"].shape[:3]
    blocks = {int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    outputs, uneven = divmod(len(state["final_layer.linear.weight"]), patch**2)
    mlp = state.get("blocks.0.mlp.fc1.weight")
    if mlp is None or uneven or outputs not in (channels, 2 * channels):
        raise InputError(f"{path} is a part of a DiT checkpoint, or damaged: its sizes fit no DiT; give the whole file")
    heads = heads or HEADS.get(width, 0)
    if heads < 1 or width % heads:
        raise InputError(f"{path}: which heads its width {width} is divided into leaves no trace; give --heads")
    return {
        "target_channels": channels,
        "width": width,
        "depth": len(blocks),
        "heads": heads,
        "patch": patch,
        "mlp_ratio": len(mlp) // width,
        "classes": state[TABLE].shape[0] - 1 if TABLE in state else state[LABELS].shape[1] if LABELS in state else 0,
        "learn_variance": outputs == 2 * channels,
    }


def translated(state: State, path: Path) -> State:
    """The entries of our `DiT`. Raises InputError where its positions are not those that we compute."""
    ours = dict(state)
    if (known := ours.pop("pos_embed", None)) is not None:
        side = round(known.shape[1] ** 0.5)
        if side**2 != known.shape[1] or not torch.allclose(
            known[0].float(), grid_positions((side, side), known.shape[2], known.device), atol=1e-5
        ):
            raise InputError(f"{path} has positions (pos_embed) of its own, not DiT's sines and cosines; it cannot be imported")
    if (table := ours.pop(TABLE, None)) is not None:
        null, width = table[-1], table.shape[1]
        ours[LABELS], ours["y_embedder.embedding_table.0.bias"] = (table[:-1] - null).T, null
        ours["y_embedder.embedding_table.1.weight"], ours["y_embedder.embedding_table.1.bias"] = torch.eye(width), torch.zeros(width)
    return ours
