"""Frozen parts of recipes are stored once: by their SHA-256 in a folder beside the runs, or in the user's own store.

A recipe names a part by its source and digest (`nn.frozen.Part`). Training puts it into `frozen/` beside the run folder, and opening
looks into the run itself (where `somite pack` puts copies), beside it, into the user's store, and last where it came from: a path, or
the Hugging Face hub. Starting weights (`nn.frozen.Start`) are looked for in the same places by training, and by nothing else.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from .errors import InputError
from .files import replacing, sha256
from .hub import ID, fetched

FOLDER = "frozen"
PART, START = {"source", "digest"}, {"weights", "digest"}  # the fields of `nn.frozen.Part` and `Start`
RUN = ("recipe.yaml", "weights.safetensors")  # what of a run folder is a part; the rest is about its training


def user_store() -> Path:
    """SOMITE_STORE, or a folder in the user's cache."""
    return Path(os.environ.get("SOMITE_STORE") or Path.home() / ".cache" / "somite" / FOLDER)


def digest_of(path: Path) -> str:
    """Of a file its SHA-256; of a folder one over the names and contents of its `contents`."""
    if path.is_file():
        return sha256(path)
    total = hashlib.sha256()
    for file in contents(path):
        total.update(f"{file.relative_to(path).as_posix()}\x1f{sha256(file)}\x1e".encode())
    return total.hexdigest()


def contents(folder: Path) -> list[Path]:
    """All files in it; of a run its recipe and weights alone."""
    if all((folder / name).is_file() for name in RUN):
        return [folder / name for name in RUN]
    return sorted(one for one in folder.rglob("*") if one.is_file())


def find(source: str, digest: str | None, run: Path) -> Path:
    """The part that a recipe of this run folder names. Raises InputError where it is nowhere, or another than was trained with."""
    places = [run / FOLDER, run.parent / FOLDER, user_store()]
    for place in places:
        if digest and (place / digest).exists():
            return place / digest
    path = Path(source)
    if not path.exists() and ID.fullmatch(source):
        path = fetched(source, user_store())
    if not path.exists():
        wanted = f" (SHA-256 {digest})" if digest else ""
        raise InputError(
            f"{run} needs {source}{wanted}, which is not here: download it and put it at {places[-1] / (digest or path.name)}, or give its "
            "path in the recipe; `somite pack` on the machine that has it makes a run whole"
        )
    found = digest_of(path)
    if digest not in (None, found):
        raise InputError(f"{path} is not the part that {run} was trained with (SHA-256 {found[:12]}, wanted {digest[:12]}); restore it")
    return path


def put(path: Path, digest: str, folder: Path) -> Path:
    """A part in a store, once: a hard link where the disk allows it."""
    out = folder / digest
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            partial = Path(
                tempfile.mkdtemp(prefix=f".{digest[:12]}-", dir=folder)
            )  # of this process: runs beside each other share the store
            partial.chmod(0o755)
            for file in contents(path):
                target = partial / file.relative_to(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                linked(str(file), str(target))
            try:
                partial.rename(out)
            except OSError:
                shutil.rmtree(partial)
                if not out.exists():  # else another process was faster
                    raise
        else:
            with replacing(out) as temporary:
                temporary.unlink()
                linked(str(path), str(temporary))
    return out


def linked(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def kept(config: Namespace, run: Path) -> Namespace:
    """A recipe about to be trained in the folder `run`, its parts put beside it, and parts and starts named by their digests."""
    config = config.clone()
    for part in named(config, PART):
        path = find(part.source, part.digest, run)
        part.digest = part.digest or digest_of(path)
        put(path, part.digest, run.parent / FOLDER)
    for start in named(config, START):
        path = find(start.weights, start.digest, run)
        start.digest = start.digest or digest_of(path)
    return config


def begun(config: Namespace, run: Path) -> Namespace:
    """A run's recipe for training: the sources of its parts and starts as paths that are there."""
    config = config.clone()
    for part in named(config, PART):
        part.source = str(find(part.source, part.digest, run))
    for start in named(config, START):
        start.weights = str(find(start.weights, start.digest, run))
    return config


def located(config: Namespace, run: Path, check: Callable[[Path], None]) -> Namespace:
    """A run's recipe for opening: the sources of its parts as paths that are there, and no starts, whose work is done; `check` sees
    each folder that is itself a run.
    """
    config = without(config, START)
    for part in named(config, PART):
        path = find(part.source, part.digest, run)
        if (path / "recipe.yaml").is_file():
            check(path / "recipe.yaml")
        part.source = str(path)
    return config


def pack(config: Namespace, run: Path) -> list[Path]:
    """Put all parts into the run folder, which is then whole wherever it is copied."""
    return [put(find(part.source, part.digest, run), part.digest, run / FOLDER) for part in named(config, PART)]


def named(tree: Any, fields: set[str]) -> Iterator[Namespace]:  # noqa: ANN401 - a Namespace and what lies in it
    """The parts or starts in a recipe, which are told by their fields."""
    match tree:
        case Namespace():
            if set(vars(tree)) == fields:
                yield tree
            else:
                for value in vars(tree).values():
                    yield from named(value, fields)
        case dict():
            for value in tree.values():
                yield from named(value, fields)
        case list():
            for value in tree:
                yield from named(value, fields)


def without(tree: Any, fields: set[str]) -> Any:  # noqa: ANN401
    """A copy with None in the place of every Namespace of these fields."""
    match tree:
        case Namespace():
            if set(vars(tree)) == fields:
                return None
            return Namespace(**{name: without(value, fields) for name, value in vars(tree).items()})
        case dict():
            return {name: without(value, fields) for name, value in tree.items()}
        case list():
            return [without(value, fields) for value in tree]
        case _:
            return tree
