"""Another run as a part of this one: its method with its weights, and how its data were prepared. What a backbone `Part` is opened as."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentError, ArgumentParser

from ..checkpoint import tensors
from ..data.dataset import Data
from ..errors import InputError
from ..store import located
from ..trust import only_own, values
from .methods import Method


@dataclass(frozen=True)
class Opened:
    """method: in evaluation mode, without gradient. data: as the run was trained on, whose files may be gone."""

    path: Path
    method: Method
    data: Data


def opened(run: Path, weights: bool = True) -> Opened:
    """A run folder, or what the store keeps of it: recipe.yaml and weights.safetensors. Classes from outside somite are never built, whoever
    is trusted. weights: False leaves the network as it begins, at random. Raises InputError for what is no such folder, and for one whose files do not fit together.
    """
    recipe = run / "recipe.yaml"
    if not recipe.is_file():
        raise InputError(f"{run} is no run folder (it has no recipe.yaml); name one that `somite train` or `somite import` made")
    only_own(recipe)
    tree = values(recipe)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "method", required=True)
    parser.add_class_arguments(Data, "data")
    try:
        config = located(parser.parse_object({name: tree[name] for name in ("method", "data")}), run, only_own)
    except (ArgumentError, KeyError, TypeError) as error:
        raise InputError(f"{recipe} is not a recipe of this version of somite; take the run from its origin again") from error
    with torch.random.fork_rng():
        built = parser.instantiate(config)
    try:
        if weights:
            built.method.load_state_dict(tensors(run / "weights.safetensors"))
    except RuntimeError as error:
        raise InputError(f"{run}: recipe.yaml and weights.safetensors do not fit; both must come from the same run") from error
    return Opened(run, built.method.requires_grad_(False).eval(), built.data)
