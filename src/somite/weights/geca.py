"""Checkpoints of the official GeCA program (xmed-lab/GeCA, arXiv 2407.03018).

Its names say two layers deep what our `CellTransformer` says in one; the weights are the same. How many heads there are leaves no trace:
they are 64 wide as published.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..recipe import build, parse, path_of
from .foreign import write_run
from .importer import Importer, State
from .unets import fitted

ORIGIN = "GeCA, Elbatel et al. 2024 (arXiv 2407.03018), xmed-lab/GeCA"
LICENCE = "no licence of its own; its program builds on DiT, which is CC BY-NC 4.0"
RECIPE = "geca/official"
HEAD = 64  # the width of a head as published
RENAMED = {
    "cell_to_embedding": "cell_to_embedding",
    "transformer.adaLN_modulation": "adaLN_modulation",
    "transformer.layers.0.0.norm": "norm1",
    "transformer.layers.0.0.fn.to_qkv": "qkv",
    "transformer.layers.0.0.fn.to_out.0": "proj",
    "transformer.layers.0.1.norm": "norm2",
    "transformer.layers.0.1.fn.net.0": "fc1",
    "transformer.layers.0.1.fn.net.3": "fc2",
    "final_layer": "final_layer",
}
MARKS = {"cell_to_embedding.weight", "transformer.layers.0.0.fn.to_qkv.weight", "final_layer.linear.weight"}


class GeCAImporter(Importer):
    """The sizes come from the checkpoint, all but the heads; the rest is the program's own: position, border, masks and sampling."""

    kind, system = "geca", "GeCA"

    def recognises(self, names: Collection[str]) -> bool:
        return {*names} >= MARKS

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, heads: int | None) -> Path:
        (state,), (path,) = states, paths
        options = architecture(state, path, heads)
        config = parse(path_of(RECIPE), [f"--method.network.network.{name}={value}" for name, value in options.items()])
        method = build(config).method
        ours = {f"network.network.{name}": value for name, value in translated(state).items()}
        rest = {name: value for name, value in method.state_dict().items() if not name.startswith("network.")}  # the codec's own
        method.load_state_dict(fitted(ours | rest, method.state_dict(), path))
        return write_run(out, config, method, [path], ORIGIN, LICENCE)


def architecture(state: State, path: Path, heads: int | None = None) -> dict[str, Any]:
    """Arguments of `networks.geca.GeCA`, read off shapes; `path` is for errors."""
    odd = [name for name in state if re.match(r"transformer\.layers\.[1-9]|pos_embedding", name)]
    if odd:
        raise InputError(f"{path} has {odd[0]}, which no published GeCA has; give one of a single layer and fixed positions")
    width, numbers = state["cell_to_embedding.weight"].shape
    channels = numbers - state["final_layer.linear.weight"].shape[0]
    labels, mlp = (state.get(name) for name in ("y_embedder.embedding_table.0.weight", "transformer.layers.0.1.fn.net.0.weight"))
    if mlp is None or channels < 1 or numbers <= 3 * channels:
        raise InputError(f"{path} is a part of a GeCA checkpoint, or damaged: its sizes fit no cell; give the whole file")
    heads = heads or width // HEAD
    if heads < 1 or width % heads:
        raise InputError(f"{path}: {heads} heads do not divide the width {width}; give --heads")
    return {
        "target_channels": channels,
        "hidden": numbers - 3 * channels,
        "width": width,
        "heads": heads,
        "mlp": mlp.shape[0],
        "classes": 0 if labels is None else labels.shape[1],
    }


def translated(state: State) -> State:
    """The entries of our `GeCA`; what has no place there keeps its name."""
    return {renamed(name): value for name, value in state.items()}


def renamed(name: str) -> str:
    """`transformer.layers.0.1.fn.net.0.weight` -> `rule.fc1.weight`."""
    for theirs, ours in RENAMED.items():
        if name.startswith(f"{theirs}."):
            return f"rule.{ours}{name.removeprefix(theirs)}"
    return name
