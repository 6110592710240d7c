"""Recipes as trees, of which studies make their grids: those that come with somite, changed; and parts that jobs stand on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..files import write_text
from ..recipe import parse, path_of
from ..trainer.run import train

Tree = dict[str, Any]


def bundled(name: str) -> Tree:
    return yaml.safe_load(path_of(name).read_text(encoding="utf-8"))


def changed(place: str, value: Any) -> Callable[[Tree], None]:  # noqa: ANN401 - whatever the argument takes
    """Set an argument of the method: "codec.posterior"."""

    def change(arguments: Tree) -> None:
        *path, name = place.split(".")
        for part in path:
            arguments = arguments[part].setdefault("init_args", {})
        arguments[name] = value

    return change


def term(name: str, **options: Any) -> Tree:  # noqa: ANN401 - whatever the term takes
    return {"class_path": f"somite.diffusion.terms.{name}", "init_args": options}


def folder_name(*parts: object) -> str:
    """Of a job, by what tells its cell."""
    return "-".join(map(str, parts)).lower().replace(" ", "-").replace(",", "")


def dataset(data: Tree, root: str, size: int) -> Tree:
    """The data of a recipe, of another folder and at this size."""
    return {**data, "root": root, "preprocess": {**data["preprocess"], "size": [size, size]}}


def part(out: Path, tree: Tree) -> None:
    """Train what jobs stand on; what is trained already is left as it is."""
    source = out.with_suffix(".yaml")
    write_text(source, yaml.safe_dump(tree, sort_keys=False))
    train(parse(source), out, out.name)
