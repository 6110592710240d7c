"""What the official GeCA and DiT programs share: checkpoints of one training script, with raw and averaged weights beside each other.

Such a file is {"model", "ema", "opt", "args"}; the releases are one of the two state dicts alone. Their networks become guided ones, the
rest of a run comes from a recipe that samples as the program does. The autoencoder whose latents they make is in none of them: it is
taken from where the recipe or the user says, and put beside the run like any frozen part.
"""

import json
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jsonargparse import Namespace

from ..diffusion.codec import Codec
from ..errors import InputError
from ..hub import ID
from ..recipe import build, parse, path_of
from ..store import begun, kept
from .foreign import write_run
from .importer import Asked, Importer, State
from .unets import fitted

RAW, AVERAGE = "model.", "ema."


class TransformerImporter(Importer):
    """marks: names that every checkpoint of this program has. recipe: the program's own way to sample. origin: the program, and its licence."""

    averaged = latent = True
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
        named = [] if asked.autoencoder is None else [f"--method.codec.weights.source={asked.autoencoder}"]
        config = parse(path_of(self.recipe), [*as_overrides(options), *self.further(state, options), *named])
        with torch.random.fork_rng():
            method = build(at_hand(config, out, asked.autoencoder)).method
        if method.codec.channels != options["target_channels"]:
            raise InputError(
                f"{path} makes latents of {options['target_channels']} channels, but the autoencoder has {method.codec.channels}; "
                "name the one that it was trained with (--autoencoder)"
            )
        if (side := self.side(state)) is not None:
            config.data.preprocess.init_args.size = [size_of(side, method.codec)] * 2
        built = method.state_dict()
        ours = {f"network.{name}": value for name, value in self.translated(state, path).items()}
        others = {name: value for name, value in built.items() if not name.startswith("network.")}  # the codec's own
        method.load_state_dict(fitted(ours | others, built, path))
        return write_run(out, kept(config, out), method, [path], *self.origin)

    @abstractmethod
    def architecture(self, state: State, path: Path, heads: int | None) -> dict[str, Any]:
        """Arguments of the network, read off names and shapes; `path` is for errors."""

    @abstractmethod
    def translated(self, state: State, path: Path) -> State:
        """The network's entries."""

    def further(self, state: State, options: dict[str, Any]) -> list[str]:
        """What else the checkpoint says of its run, as overrides; `options` are the architecture's."""
        return []

    def side(self, state: State) -> int | None:
        """Of the square of latents that it was trained on; None where it does not tell, and the recipe's size stays."""
        return None


def as_overrides(options: dict[str, Any]) -> list[str]:
    """The sizes, and names for the labels, of which a checkpoint has the number alone; of one without labels the network is unguided."""
    settings = [f"--method.network.network.{name}={str(value).lower()}" for name, value in options.items()]
    if not options["classes"]:
        return [*settings, "--task.labelled=false", "--method.network.guidance=1", "--method.network.drop=0"]
    return [*settings, f"--data.classes={json.dumps([str(index) for index in range(options['classes'])])}"]


def at_hand(config: Namespace, out: Path, named: str | None) -> Namespace:
    """The recipe with its autoencoder as a path that is there. Raises InputError where it is not to be had, saying what to put where."""
    if named is not None and not Path(named).exists() and not ID.fullmatch(named):
        raise InputError(f"--autoencoder {named} is not there; give the folder of an AutoencoderKL, its file, a run of one or a hub id")
    try:
        return begun(config, out)
    except InputError as error:
        raise InputError(f"{error} (--autoencoder FOLDER)") from error


def size_of(side: int, codec: Codec) -> int:
    """Of images that become so many latents a side."""
    some = 256  # any that all reductions divide
    return some * side // codec.shape((1, codec.maps, some, some))[2]


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
