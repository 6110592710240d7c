"""A run made ready to be given away: what it takes to answer, a card that says what it is, and nothing of the machine that it was trained on."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from .errors import InputError
from .files import new_folder, read_json, write_json, write_text
from .hub import BESIDE, FITTED, ID, give
from .pipeline import Run
from .places import came
from .recipe import parse
from .report.card import card
from .store import FOLDER, PART, find, named, put
from .trust import bounded

PLACE = re.compile(r"(?<![\w:/.~])(?:(?:~|\.{1,2})?/|[A-Za-z]:[/\\])(?:[^\s/\\`'\"]+[/\\])*([^\s/\\`'\"]+)")  # a path, and its last name
PATHS = ("root", "splits", "extra", "soft", "cache_folder")  # of the data, whose place is the trainer's own
TAGS = ["somite", "medical-imaging", "diffusion"]


def push(run: Run, repository: str, public: bool = False, about: str = "", licence: str | None = None) -> str:
    """Give a run to the Hugging Face hub; returns its address there. Raises InputError for runs that came from there, or with somite."""
    if came(run.path):
        raise InputError(f"{run.path} came from somebody, who gives it to all; push runs that you trained")
    with tempfile.TemporaryDirectory() as place:
        return give(reduced(run, Path(place) / "run", repository, about, licence), repository, public)


def reduced(run: Run, out: Path, name: str, about: str = "", licence: str | None = None) -> Path:
    """Write into a new folder what `somite.load` needs of a run, and its card; returns the folder.

    name: by which others will open it. about: of the data that it was trained on, in Markdown; its first line opens recipe.yaml.
    Raises InputError for a folder that holds something, and for frozen parts that are no folder of configurations and safetensors.
    """
    first = about.strip().partition("\n")[0]
    with new_folder(out) as partial:
        write_text(partial / "recipe.yaml", (f"# {first.lstrip('# ')}\n" if first else "") + without_places(run.path / "recipe.yaml"))
        shutil.copyfile(run.path / "weights.safetensors", partial / "weights.safetensors")
        for file in FITTED:
            if (run.path / file).is_file():
                write_json(partial / file, without_names(read_json(run.path / file)))
        packed(parse(run.path / "recipe.yaml"), run.path, partial)
        write_text(partial / "README.md", header(run, licence) + PLACE.sub(r"\1", card(run, name, name, about)))
    return out


def without_places(path: Path) -> str:
    """A run's recipe that says nothing of where its data, starts and parts lay."""
    recipe = yaml.safe_load(bounded(path))
    data, method = recipe["data"], recipe["method"].get("init_args", {})
    data |= {key: None for key in PATHS if key in data} | ({"cache_disk_gb": 0.0} if "cache_disk_gb" in data else {})
    timesteps = method.get("timesteps")
    if isinstance(timesteps, dict) and "path" in timesteps.get("init_args", {}):
        method["timesteps"] = None  # of training, by a table of benefits that lies elsewhere
    return yaml.safe_dump(last_names(recipe), sort_keys=False, width=140)


def without_names(fitted: dict[str, Any]) -> dict[str, Any]:
    """What was fitted on cases, of which the digests are kept, so that they are known again, and the names are not."""
    cases = fitted.get("cases")
    return {**fitted, "cases": {str(i): digest for i, digest in enumerate(cases.values())}} if isinstance(cases, dict) else fitted


def last_names(tree: Any) -> Any:  # noqa: ANN401 - a YAML tree
    match tree:
        case dict():
            return {key: last_names(value) for key, value in tree.items()}
        case list():
            return [last_names(value) for value in tree]
        case str() if PLACE.fullmatch(tree):
            return PLACE.sub(r"\1", tree)
        case _:
            return tree


def packed(config: Namespace, run: Path, out: Path) -> None:
    """The frozen parts of a recipe, those of hub ids excepted, in the folder of a run."""
    for part in named(config, PART):
        if ID.fullmatch(part.source):
            continue
        path = find(part.source, part.digest, run)
        odd = [] if path.is_dir() else [path]
        odd += [one for one in path.rglob("*") if one.is_file() and f"frozen/*/{one.name}" not in BESIDE]
        if odd:
            raise InputError(
                f"{run} needs {part.source}, of which {odd[0].name} is neither configuration nor safetensors, so nobody would fetch it; "
                "give the part as a folder that diffusers wrote, or as a run"
            )
        put(path, part.digest, out / FOLDER)


def header(run: Run, licence: str | None) -> str:
    """What the hub reads of a card."""
    task = type(run.recipe.task).__name__.lower()
    kinds = {"segmentation": "image-segmentation", "classification": "image-classification", "synthesis": "unconditional-image-generation"}
    told = {"license": licence, "library_name": "somite", "pipeline_tag": kinds.get(task), "tags": TAGS}
    return f"---\n{yaml.safe_dump({key: value for key, value in told.items() if value}, sort_keys=False)}---\n\n"
