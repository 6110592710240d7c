"""A recipe is one YAML file: class paths and their arguments, read into typed constructors by jsonargparse.

Every argument is overridable: `--method.sampler.steps=5`. No registry: a class path names any class; of recipes that come
with somebody else's run only somite's own classes are accepted.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .data.dataset import Data
from .diffusion.methods import Method
from .errors import InputError
from .tasks.task import Task
from .train.options import Training

OWN = "somite."


@dataclass
class Recipe:
    task: Task
    data: Data
    method: Method
    training: Training


def path_of(name: str) -> Path:
    """The file of a bundled recipe ("medsegdiffnca/ph2") or of one's own (a path to a YAML file)."""
    own = Path(name)
    if own.suffix in (".yaml", ".yml"):
        if not own.is_file():
            raise InputError(f"the recipe {own} is not there; give a bundled one (somite recipes lists them) or the path of a YAML file")
        return own
    bundled = Path(str(files("somite") / "recipes" / f"{name}.yaml"))
    if not bundled.is_file():
        raise InputError(f"there is no recipe {name!r}; somite recipes lists those that there are")
    return bundled


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False, prog="somite train RECIPE", default_env=False)
    made.add_argument("--config", action="config", help="a recipe file")
    made.add_subclass_arguments(Task, "task")
    made.add_class_arguments(Data, "data")
    made.add_subclass_arguments(Method, "method")
    made.add_class_arguments(Training, "training")
    return made


def parse(path: Path, overrides: Sequence[str] = ()) -> Namespace:
    """A recipe file with overrides, checked against the constructors but not yet built."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parser().parse_args(["--config", str(path), *overrides])
    except (ArgumentError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {first_line(error)}; somite train {path.stem} --help lists the options") from error


def build(config: Namespace) -> Recipe:
    built = parser().instantiate(config)
    return Recipe(built.task, built.data, built.method, built.training)


def dump(config: Namespace) -> str:
    """The resolved recipe as YAML: every default written out."""
    return parser().dump(config, skip_none=False, skip_link_targets=False)


def only_own(path: Path) -> None:
    """Refuse a recipe that names a class outside somite: building it would run whatever that name points to."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as a recipe ({first_line(error)}); take it from the run's origin again") from error
    for name in class_paths(tree):
        if "." in name and not name.startswith(OWN):
            raise InputError(
                f"{path} names the class {name}, which is not somite's; loading it would run a stranger's code. "
                "If you trust where this run comes from, add --trust (in Python: somite.load(path, trust=True))"
            )


def class_paths(tree: Any) -> list[str]:  # noqa: ANN401 - a YAML tree
    if isinstance(tree, dict):
        here = [tree["class_path"]] if isinstance(tree.get("class_path"), str) else []
        return here + [name for value in tree.values() for name in class_paths(value)]
    return [name for value in tree for name in class_paths(value)] if isinstance(tree, list) else []


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4]) if lines else type(error).__name__
