"""What a run of somebody else's may say: a recipe bounded in size, naming nothing but somite's own classes, in a folder without ways out.

A recipe is YAML, in which ten lines of aliases can stand for a thousand million nodes, and a string can name code to run.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

OWN = re.compile(r"somite(\.\w+)+")
# Files that hold no code, and the names of classes, one by one in a list of strings.
PATHS = (
    ".data.root",
    ".data.splits",
    ".data.extra.root",
    ".data.cache_folder",
    ".method.init_args.timesteps.init_args.path",
    ".data.classes[]",
)
PARTS = ({"source", "digest"}, {"weights", "digest"})  # frozen parts and starts, whose places are never read as a class (somite.store)
WORD = re.compile(r"[\w ,+-]*")
# Recipes have some hundred nodes and ten levels. Longer scalars can be numbers to base 60, whose reading is quadratic.
BYTES, NODES, DEPTH, SCALAR = 100_000, 10_000, 50, 4096


SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # jsonargparse's, or the two could read different things


class Reader(SafeLoader):
    """Like jsonargparse it takes a date for a string, which may be a file's name."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def only_own(path: Path) -> None:
    """Refuse a recipe that could bring in a class from outside somite: reading it would already run whatever it names.

    A class may hide in any string, as a class path or as a file that names one in its turn. So every string has to be one
    of somite's own classes or a plain word that is no file's name; only paths that are never read as a class are free.
    """
    text = foreign(path, values(path))
    if text is not None:
        raise InputError(
            f"{path} names {text}, which is not somite's; loading it could run a stranger's code. "
            "If it is your own, or you trust where this run comes from, add --trust (in Python: somite.load(path, trust=True))"
        )


def values(path: Path) -> Any:  # noqa: ANN401 - a YAML tree
    """What a recipe's file says, as plain values: nothing that it names is looked at. Raises InputError for what is no YAML, or too large."""
    text = bounded(path)
    try:
        return yaml.load(text, Reader)
    except (ValueError, yaml.YAMLError) as error:
        raise unreadable(path, error) from error


def foreign(path: Path, tree: Any) -> str | None:  # noqa: ANN401 - a YAML tree
    """The first string of a recipe in this file that could bring in a class from outside somite; None: it needs no trust."""
    return next(
        (text for text in strings(tree) if not OWN.fullmatch(text) and (not WORD.fullmatch(text) or (path.parent / text).is_file())), None
    )


def no_links(run: Path) -> None:
    """Refuse a run folder in which a folder leads out of it: what evaluation or training wrote there would land elsewhere. (A file that is
    a link does no harm: it is replaced, never written through.)
    """
    root = run.resolve()
    for at, names, _ in os.walk(run):
        for path in (Path(at, name) for name in names):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise InputError(
                    f"{path} is a link out of the run folder, to {path.resolve()}, and what somite writes there would land in it; remove the "
                    "link, or, if you trust where this run comes from, add --trust"
                )


def strings(tree: Any, at: str = "") -> Iterator[str]:  # noqa: ANN401 - a YAML tree
    match tree:
        case dict():
            for key, value in tree.items():
                if not ({*tree} in PARTS and key != "digest"):
                    yield from strings(value, f"{at}.{key}")
        case list() | tuple() | set():
            for value in tree:
                yield from strings(value, f"{at}[]")
        case str():
            if tree and at not in PATHS:
                yield tree
        case None | bool() | int() | float():
            pass
        case _:  # bytes and dates have no place in a recipe
            yield repr(tree)


def bounded(path: Path) -> str:
    """The text of a YAML file whose aliases, if every one were written out, would give at most `NODES` nodes.

    Raises InputError for larger or deeper ones, for aliases of what they lie in, and for what is no YAML. Counted by the
    parser's events, which follow no alias: what an anchor stands for is counted once and then added for each alias.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES + 1)
        if len(raw) > BYTES:
            raise InputError(f"{path} is too large for a recipe (over {BYTES // 1000} kB); take it from its origin again")
        text = raw.decode("utf-8")
        count(path, text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise unreadable(path, error) from error
    return text


def count(path: Path, text: str) -> None:
    """Raises InputError where the nodes of `text`, its aliases written out, are too many or too deep."""
    known: dict[str | None, tuple[int, int]] = {}  # anchor: nodes and levels of what it stands for
    within: list[tuple[str | None, int]] = []  # open collections: anchor, and nodes before
    deepest = [0]  # level reached in each of them, and before all
    total = 0
    for event in yaml.parse(text, Reader):
        match event:
            case yaml.CollectionEndEvent():
                (anchor, before), reached = within.pop(), deepest.pop()
                known[anchor] = total - before, reached - len(within)
                deepest[-1] = max(deepest[-1], reached)
                continue
            case yaml.AliasEvent():
                if event.anchor in (anchor for anchor, _ in within):
                    raise InputError(f"{path} has an alias, *{event.anchor}, of what it lies in, which has no end; write out what is meant")
                nodes, levels = known.get(event.anchor, (1, 1))  # of an unknown one the reader complains
            case yaml.ScalarEvent() | yaml.CollectionStartEvent():
                nodes, levels = known[event.anchor] = 1, 1
                length = len(getattr(event, "value", ""))
                if length > SCALAR:
                    raise InputError(f"{path} has a value of {length} characters, and a recipe's have at most {SCALAR}; shorten it")
            case _:
                continue
        level = len(within) + levels
        deepest[-1] = max(deepest[-1], level)
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, total))
            deepest.append(level)
        total += nodes
        if total > NODES or level > DEPTH:
            raise InputError(
                f"{path} stands for more than {NODES} values or {DEPTH} levels of them, and no recipe does; take it from its origin again"
            )


def unreadable(path: Path, error: Exception) -> InputError:
    why = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path} cannot be read as a recipe ({why[:300]}); mend it there, or take it from its origin again")
