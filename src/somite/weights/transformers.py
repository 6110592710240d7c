"""What the official GeCA and DiT programs share: checkpoints of one training script, with raw and averaged weights beside each other.

Such a file is {"model", "ema", "opt", "args"}; the releases are one of the two state dicts alone. Their networks become guided ones, the
rest of a run comes from a recipe that samples as the program does.
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
from .unets import fitted

RAW, AVERAGE = "model.", "ema."


class TransformerImporter(Importer):
    """marks: names that every checkpoint of this program has. recipe: the program's own way to sample. origin: the program, and its licence."""

    averaged = True
    marks: ClassVar[frozenset[str]]
    recipe: ClassVar[str]
    origin: ClassVar[tuple[str, str]]

    def recognises(self, names: Collection[str]) -> bool:
        return {*chosen(dict.fromkeys(names, torch.empty(0)), raw=False)} >= self.marks

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        """Raw weights are those of a checkpoint that has both; where it has one of them, that is taken."""
        (path,) = paths
        state = chosen(states[0], asked.raw)
        if not {*state} >= self.marks:
            kind = "raw" if asked.raw else "averaged"
            raise InputError(f"{path} has no {kind} weights of {self.system}; give the file that its program saved")
        options = self.architecture(state, path, asked.heads)
        settings = [f"--method.network.network.{name}={str(value).lower()}" for name, value in options.items()]
        config = parse(path_of(self.recipe), settings)
        with torch.random.fork_rng():
            method = build(config).method
        built = method.state_dict()
        ours = {f"network.{name}": value for name, value in self.translated(state, path).items()}
        others = {name: value for name, value in built.items() if not name.startswith("network.")}  # the codec's own
        method.load_state_dict(fitted(ours | others, built, path))
        return write_run(out, config, method, [path], *self.origin)

    @abstractmethod
    def architecture(self, state: State, path: Path, heads: int | None) -> dict[str, Any]:
        """Arguments of the network, read off names and shapes; `path` is for errors."""

    @abstractmethod
    def translated(self, state: State, path: Path) -> State:
        """The network's entries."""


def chosen(state: State, raw: bool) -> State:
    """The raw or the averaged weights of a checkpoint that has both; the weights of another as they are."""
    if not any(name.startswith(AVERAGE) for name in state):
        return state
    prefix = RAW if raw else AVERAGE
    return {name.removeprefix(prefix).removeprefix("module."): value for name, value in state.items() if name.startswith(prefix)}


def divided(width: int, heads: int, path: Path) -> int:
    """How many heads, where that can be. Raises InputError where they do not divide the width."""
    if heads < 1 or width % heads:
        raise InputError(
            f"{path}: its width of {width} is not of a published size, so its heads cannot be told; give --heads, a divisor of it"
        )
    return heads
