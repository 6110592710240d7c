"""Frozen parts of recipes are stored once: by their SHA-256 in a folder beside the runs, or in the user's own store.

A recipe names a part by its source and digest (`nn.frozen.Part`). Training puts it into `frozen/` beside the run folder, and opening
looks into the run itself (where `somite pack` puts copies), beside it, into the user's store, and last where it came from.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from .errors import InputError
from .files import replacing, sha256

FOLDER = "frozen"


def user_store() -> Path:
    """SOMITE_STORE, or a folder in the user's cache."""
    return Path(os.environ.get("SOMITE_STORE") or Path.home() / ".cache" / "somite" / FOLDER)


def digest_of(path: Path) -> str:
    """Of a file its SHA-256; of a folder one over the names and contents of all files in it."""
    if path.is_file():
        return sha256(path)
    total = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\x1f{sha256(file)}\x1e".encode())
    return total.hexdigest()


def find(source: str, digest: str | None, run: Path) -> Path:
    """The part that a recipe of this run folder names. Raises InputError where it is nowhere, or another than was trained with."""
    places = [run / FOLDER, run.parent / FOLDER, user_store()]
    for place in places:
        if digest and (place / digest).exists():
            return place / digest
    path = Path(source)
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
            partial = folder / f".{digest}"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(path, partial, copy_function=linked)
            partial.rename(out)
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
    """A recipe about to be trained in the folder `run`, its parts put beside it and named by their digests."""

    def keep(part: Namespace) -> None:
        path = find(part.source, part.digest, run)
        part.digest = part.digest or digest_of(path)
        put(path, part.digest, run.parent / FOLDER)

    return changed(config, keep)


def located(config: Namespace, run: Path, check: Callable[[Path], None]) -> Namespace:
    """A run's recipe with the sources of its parts as paths that are there; `check` sees each folder that is itself a run."""

    def locate(part: Namespace) -> None:
        path = find(part.source, part.digest, run)
        if (path / "recipe.yaml").is_file():
            check(path / "recipe.yaml")
        part.source = str(path)

    return changed(config, locate)


def pack(config: Namespace, run: Path) -> list[Path]:
    """Put all parts into the run folder, which is then whole wherever it is copied."""
    return [put(find(part.source, part.digest, run), part.digest, run / FOLDER) for part in parts(config)]


def changed(config: Namespace, change: Callable[[Namespace], None]) -> Namespace:
    config = config.clone()
    for part in parts(config):
        change(part)
    return config


def parts(tree: Any) -> Iterator[Namespace]:  # noqa: ANN401 - a Namespace and what lies in it
    match tree:
        case Namespace():
            if set(vars(tree)) == {"source", "digest"}:
                yield tree
            else:
                for value in vars(tree).values():
                    yield from parts(value)
        case dict():
            for value in tree.values():
                yield from parts(value)
        case list():
            for value in tree:
                yield from parts(value)
