"""Checkpoints of DiT in the layout of its release (facebookresearch/DiT), and of GeCA's program, whose baseline it is.

DiT looks its one label up in a table whose last row stands for none; ours is two linear maps, to which a table is translated exactly: the
first holds each row's difference from the last, the second changes nothing. How many heads there are leaves no trace.
"""

import re
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..nn.conditioning import grid_positions
from .importer import State
from .transformers import TransformerImporter, divided

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # as published, by width
TABLE, LABELS = "y_embedder.embedding_table.weight", "y_embedder.embedding_table.0.weight"


class DiTImporter(TransformerImporter):
    """Of two-dimensional latents; the sizes come from the checkpoint, all but the heads."""

    kind, system, recipe = "dit", "DiT", "dit/official"
    marks = frozenset({"x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "final_layer.linear.weight", "t_embedder.mlp.0.weight"})
    origin = (
        "DiT, Peebles & Xie 2023 (arXiv 2212.09748), facebookresearch/DiT",
        "CC BY-NC 4.0, if these are the files released there; otherwise that of their author",
    )

    def architecture(self, state: State, path: Path, heads: int | None) -> dict[str, Any]:
        return architecture(state, path, heads)

    def translated(self, state: State, path: Path) -> State:
        return translated(state, path)

    def further(self, state: State, options: dict[str, Any]) -> list[str]:
        """GeCA's program guides all channels of its baseline; without a learned variance the release's program takes the large one."""
        told = [] if TABLE in state else [f"--method.network.channels={options['target_channels']}"]
        if not options["learn_variance"]:
            told += ["--method.sampler.variance=large", "--method.terms={noise: {class_path: somite.diffusion.terms.Noise}}"]
        return told

    def side(self, state: State) -> int | None:
        return round(state["pos_embed"].shape[1] ** 0.5) * state["x_embedder.proj.weight"].shape[2] if "pos_embed" in state else None


IMPORTERS = [DiTImporter()]


def architecture(state: State, path: Path, heads: int | None = None) -> dict[str, Any]:
    """Arguments of `networks.dit.DiT`, read off names and shapes; `path` is for errors."""
    width, channels, patch = state["x_embedder.proj.weight"].shape[:3]
    blocks = {int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    outputs, uneven = divmod(len(state["final_layer.linear.weight"]), patch**2)
    mlp = state.get("blocks.0.mlp.fc1.weight")
    if mlp is None or uneven or outputs not in (channels, 2 * channels):
        raise InputError(f"{path} is a part of a DiT checkpoint, or damaged: its sizes fit no DiT; give the whole file")
    return {
        "target_channels": channels,
        "width": width,
        "depth": len(blocks),
        "heads": divided(width, heads or HEADS.get(width, 0), path),
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
