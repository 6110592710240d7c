"""How a sample is drawn, in one record: what reaches a sampler by an option, and what every output says it was made with.

Each option of sampling is an argument of some constructor in the recipe. So a sampling is overrides of the recipe, checked by the
recipe's own parser, beside the number of members and the seed; nothing is ever set on a loaded run. The short options of the
command line and of `Run.at` are names for overrides: one line each in `OPTIONS`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .diffusion.heredity import HEREDITIES
from .diffusion.readout import READOUTS
from .errors import InputError
from .nn.automaton import FIRINGS
from .predict.control import Controlled
from .predict.temperature import Tempered

Tree = dict[str, Any]  # a recipe, every default written out


@dataclass(frozen=True)
class Sampling:
    """members: samples a case. overrides: of the recipe's method and task, as on the command line ("--method.sampler.steps=5")."""

    members: int
    seed: int = 0
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InputError(f"--members {self.members}: an ensemble has at least one member")

    def but(self, members: int | None, seed: int | None, overrides: Mapping[str, str]) -> "Sampling":
        """This sampling with other members, seed or overrides; an override takes the place of the one of its name."""
        named = {**self.named, **overrides}
        told = tuple(f"{name}={value}" for name, value in named.items())
        return Sampling(self.members if members is None else members, self.seed if seed is None else seed, told)

    @property
    def named(self) -> dict[str, str]:
        """The overrides by name."""
        return {name: value for name, _, value in (text.partition("=") for text in self.overrides)}


@dataclass(frozen=True)
class Option:
    """`place`: of the argument in the recipe, or its own name where that is a network's; `lacking`: what to say where there is none.
    `also`: where else it is to be set if there is such an argument.
    """

    place: str
    value: Callable[[Any, Tree], Any]
    lacking: str
    also: tuple[str, ...] = ()


def plain(value: Any, tree: Tree) -> Any:  # noqa: ANN401 - whatever the option takes
    return value


def tempered(value: float, tree: Tree) -> Tree:
    """The recipe's own fusion at this temperature, in place of one that it had."""
    fusion = arguments(tree["task"])["fusion"]
    if fusion and fusion["class_path"] == class_path(Tempered):
        fusion = arguments(fusion)["fusion"]
    return {"class_path": class_path(Tempered), "init_args": {"temperature": value, "fusion": fusion}}


def controlled(value: Tree, tree: Tree) -> Tree:
    """The recipe's own fusion with its mask at this threshold; value: the other arguments of `Controlled`."""
    fusion = arguments(tree["task"])["fusion"]
    if fusion and fusion["class_path"] == class_path(Controlled):
        fusion = arguments(fusion)["fusion"]
    return {"class_path": class_path(Controlled), "init_args": {**value, "fusion": fusion}}


def class_path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


SAMPLERS = {
    "ddim": {"class_path": "somite.diffusion.samplers.DDIM", "init_args": {}},
    "ancestral": {"class_path": "somite.diffusion.samplers.Ancestral", "init_args": {}},
    "dpm-solver++": {
        "class_path": "somite.diffusion.diffusers_sampler.Diffusers",
        "init_args": {"scheduler": "DPMSolverMultistepScheduler"},
    },
}


def walked(name: str, tree: Tree) -> Tree:
    """Another sampler, of as many steps."""
    if name not in SAMPLERS:
        raise InputError(f"there is no short name {name!r} for a sampler; those that there are: {', '.join(SAMPLERS)}")
    _, method = innermost(tree)
    steps = arguments(arguments(method)["sampler"])["steps"]
    return {**SAMPLERS[name], "init_args": {**SAMPLERS[name]["init_args"], "steps": steps}}


CELLS = "is for cellular automata, and this run's network has no cells; leave it out"
OPTIONS = {
    "sampler": Option(
        "method.sampler", walked, "a feed-forward method has no sampler; leave --sampler out"
    ),  # first: it brings its own steps
    "steps": Option("method.sampler.steps", plain, "a feed-forward method takes exactly one step; leave --steps out"),
    "placed": Option(
        "method.sampler.placed", plain, "this run's sampler places its timesteps itself; use DDIM or Ancestral, or leave --benefit out"
    ),
    "readout": Option("method.readout", lambda name, _: class_path(READOUTS[name]), "this run's method reads no answer; leave it out"),
    "firing": Option("firing", lambda name, _: class_path(FIRINGS[name]), f"--firing {CELLS}"),
    "tile": Option("tile", plain, "--tile is for cellular automata that segment, and this run's network is none; leave it out"),
    "arithmetic": Option("arithmetic", plain, f"--precision {CELLS}"),
    "updates": Option("updates", plain, f"--updates {CELLS}"),
    "heredity": Option(
        "method.heredity",
        lambda name, _: {"class_path": class_path(HEREDITIES[name]), "init_args": {}},
        "a feed-forward method has no steps between which something is inherited; leave --heredity out",
    ),
    "guidance": Option("guidance", plain, "this run's network is not guided; leave --guidance out"),
    "overlap": Option("overlap", plain, "this run's network is given images as a whole, not in windows; leave --overlap out"),
    "convolutions": Option(
        "method.codec.convolutions",
        plain,
        "--convolutions is for methods in the latents of an autoencoder, and this run's is none; leave it out",
        also=("convolutions",),
    ),
    "fusion": Option("task.fusion", plain, "this run's task fuses nothing; leave --fusion out"),
    "temperature": Option("task.fusion", tempered, "this run's task has no probabilities to scale; leave --calibrated out"),
    "control": Option("task.fusion", controlled, "this run's task makes no masks by a threshold; leave it out"),
    "extractor": Option(
        "task.extractor",
        lambda path, _: {"source": str(path), "digest": None},  # whole, or the digest of the recipe's own would stay
        "this run's task compares no images; leave --extractor out",
    ),
    "tolerance": Option("task.tolerance", plain, "this run's task has no tolerance; leave --tolerance out"),
}


def overrides(tree: Tree, **options: Any) -> dict[str, str]:  # noqa: ANN401
    """Short options as overrides of the recipe `tree`: {"--method.sampler.steps": "5"}. Raises InputError where it has no such argument."""
    found = {}
    unknown = next((name for name in options if name not in OPTIONS), None)
    if unknown:
        raise InputError(f"sampling has no option {unknown!r}; those that there are: members, seed, {', '.join(OPTIONS)}")
    for name, option in OPTIONS.items():
        if name not in options:
            continue
        value = options[name]
        place = place_of(tree, option.place)
        if place is None:
            if name == "steps" and value == 1:
                continue
            raise InputError(option.lacking)
        given = option.value(value, tree)
        for one in (place, *[further for name in option.also if (further := place_of(tree, name))]):
            found[f"--{one}"] = given if isinstance(given, str) else json.dumps(given)
    return found


def place_of(tree: Tree, place: str) -> str | None:
    """Where the recipe has this argument, as an override names it. Of a method around another, the inner one is meant; a bare name is
    looked for in the network and what it wraps.
    """
    path, method = innermost(tree)
    if "." in place:
        root, _, rest = place.partition(".")
        at: Any = method if root == "method" else tree[root]
        for part in rest.split("."):
            at = arguments(at).get(part, ...)
            if at is ...:
                return None
        return f"{path if root == 'method' else root}.{rest}"
    path, network = f"{path}.network", arguments(method).get("network")
    while isinstance(network, dict):
        if place in arguments(network):
            return f"{path}.{place}"
        path, network = f"{path}.network", arguments(network).get("network")
    return None


def innermost(tree: Tree) -> tuple[str, Tree]:
    """The method that samples, within those around it, and its path."""
    path, method = "method", tree["method"]
    while "method" in arguments(method):
        path, method = f"{path}.method", arguments(method)["method"]
    return path, method


def arguments(tree: Any) -> Tree:  # noqa: ANN401 - a part of a recipe
    """The arguments of a class in a recipe, or the tree itself."""
    if not isinstance(tree, dict):
        return {}
    return tree.get("init_args") or {} if "class_path" in tree else tree
