"""Where a run lies: in a folder; in somite itself, as "zoo/nuclei"; or on the Hugging Face hub, as "org/name" or "org/name@revision".

Runs of the last two kinds are for reading. What commands make of them goes into folders of the user's own.
"""

from importlib.resources import files
from pathlib import Path

from .errors import InputError
from .hub import KEPT, RUN, run_of
from .store import user_store

ZOO = Path(str(files("somite") / "zoo"))
OWN = "runs"  # where training puts runs by default, so that a mistyped runs/mine is asked of no hub


def zoo() -> dict[str, Path]:
    """Names and folders of the runs that come with somite."""
    return {f"zoo/{recipe.parent.name}": recipe.parent for recipe in sorted(ZOO.glob("*/recipe.yaml"))}


def folder_of(named: str | Path) -> Path:
    """The folder of the run that a name stands for, fetched from the hub where that is the hub's. What is there as a path is that path.

    Raises InputError for what neither somite nor the hub has; other paths that are not there are returned as they are.
    """
    path = Path(named)
    name = path.as_posix()
    if path.exists():
        return path
    known = zoo()
    if name in known:
        return known[name]
    if name.startswith("zoo/") and not Path("zoo").exists():
        raise InputError(f"there is no {name}; somite has {', '.join(known)}")
    if RUN.fullmatch(name) and path.parts[0] != OWN and not Path(path.parts[0]).exists():
        return run_of(name, user_store())
    return path


def came(folder: Path) -> bool:
    """Whether a run came with somite or from the hub, and stays as it is."""
    return any(folder.resolve().is_relative_to(place.resolve()) for place in (ZOO, user_store() / KEPT))


def own(named: str | Path) -> Path:
    """The folder of a run, to write into. Raises InputError for runs of somite and of the hub, which stay as they came."""
    folder = folder_of(named)
    if came(folder):
        raise InputError(
            f"{named} stays as it came, so nothing is written into it: name a folder with --out where the command takes one, or copy {folder} and name the copy"
        )
    return folder
