"""What the official EnsemDiff, SegDiff and MedSegDiff programs share: checkpoints of guided-diffusion's U-Net.

Those are bare state dicts whose names are our submodules' own. The architecture is read off the names and shapes; the number of
attention heads leaves no trace in them and is the published default unless given, and so are mask range, timesteps and sampler.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..errors import InputError
from ..recipe import build, parse, path_of
from .foreign import write_run
from .importer import Asked, Importer, State

BODY = "input_blocks.0.0.weight"
MARKS = ("rrdb.conv_first", "hwm.ffparser", "hwm.")  # parts that only one of the programs has


class UNetImporter(Importer):
    """mark: the part that tells this program's checkpoints from the others' (None: it has none of them). heads: as published.
    recipe: the program's own way to sample. origin: the program, and its licence.
    """

    mark: ClassVar[str | None]
    heads: ClassVar[int] = 1
    recipe: ClassVar[str]
    origin: ClassVar[tuple[str, str]]

    def recognises(self, names: Collection[str]) -> bool:
        found = next((mark for mark in MARKS if any(name.startswith(mark) for name in names)), None)
        return BODY in names and found == self.mark

    def differs(self, names: Collection[str]) -> str:
        part = f"{self.mark.partition('.')[0]}." if self.mark else None
        if part and not any(name.startswith(part) for name in names):
            return f"it has no {part}* entries"
        odd = next((name for name in names if name.startswith(("rrdb.", "hwm."))), next(iter(names)))
        return f"it has entries such as {odd}"

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        (state,), (path,) = states, paths
        lacking = [name for name in ("time_embed.0.weight", "out.2.weight") if name not in state]
        if lacking:
            raise InputError(f"{path} is a part of a {self.kind} checkpoint: {lacking[0]} is missing; give the whole file")
        options = self.architecture(state) | {"heads": self.heads if asked.heads is None else asked.heads}
        config = parse(path_of(self.recipe), [*as_overrides(options), *self.mended])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            method = build(config).method
        state = self.completed(state, method.state_dict())
        method.load_state_dict(fitted(state, method.state_dict(), path))
        return write_run(out, config, method, [path], *self.origin)

    @abstractmethod
    def architecture(self, state: State) -> dict[str, Any]:
        """Constructor arguments, read off names and shapes."""

    @property
    def mended(self) -> list[str]:
        """Where the run differs from its recipe, as overrides."""
        return []

    def completed(self, state: State, built: State) -> State:
        """The checkpoint with what its program saves nowhere, from the network as it was built."""
        return state


def body(state: State) -> dict[str, Any]:
    """Levels, blocks and attention of the U-Net, and its width and number of image channels (inputs less the mask)."""
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
    return {
        "mults": mults,
        "res_blocks": counts[0],
        "attention": sorted(attention),
        "channels": channels,
        "image_channels": inputs - 1,
        "learn_variance": outputs == 2,
    }


def as_overrides(options: dict[str, Any]) -> list[str]:
    settings = [f"--method.network.{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()]
    return [*settings, f"--data.preprocess.channels={options['image_channels']}"]


def fitted(state: State, wanted: State, path: Path) -> State:
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
