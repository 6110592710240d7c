"""Checkpoints of the official GeCA program (xmed-lab/GeCA, arXiv 2407.03018).

Its names say two layers deep what our `CellTransformer` says in one; the weights are the same. How many heads there are leaves no trace:
they are 64 wide as published.
"""

import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from .importer import State
from .transformers import TransformerImporter, divided

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


class GeCAImporter(TransformerImporter):
    """The sizes come from the checkpoint, all but the heads; the rest is the recipe's: position, border, masks and sampling."""

    kind, system, recipe = "geca", "GeCA", "geca/official"
    marks = frozenset({"cell_to_embedding.weight", "transformer.layers.0.0.fn.to_qkv.weight", "final_layer.linear.weight"})
    origin = "GeCA, Elbatel et al. 2024 (arXiv 2407.03018), xmed-lab/GeCA", "no licence of its own; it builds on DiT, which is CC BY-NC 4.0"

    def architecture(self, state: State, path: Path, heads: int | None) -> dict[str, Any]:
        return architecture(state, path, heads)

    def translated(self, state: State, path: Path) -> State:
        return translated(state)


IMPORTERS = [GeCAImporter()]


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
    return {
        "target_channels": channels,
        "hidden": numbers - 3 * channels,
        "width": width,
        "heads": divided(width, heads or width // HEAD, path),
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
