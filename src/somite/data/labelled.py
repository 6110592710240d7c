"""Images with labels: which classes there are, and which of them each image has, recognised by what is there.

- a table `labels.csv` beside `images/`, or in the folder of images: `id`, and one column of classes (text or integers) or a 0/1 column
  for each label; its columns `split` and `group` are heeded where no splits.json and groups.csv stand beside it;
- a folder a class, `root/CLASS/*.png`;
- MedMNIST's .npz (train_images, train_labels, val_..., test_...).

A case's labels are a vector of 0 and 1, one for each class in the order of `Source.classes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import sha256
from . import packed, sources
from .listing import FlawError, Hear, Source, by_stem, check_splits, listing, rows, stop
from .packed import Packed
from .record import Case

TABLE = "labels.csv"
NO_CLASSES = ("id", "split", "group", "image", "mask")  # columns of a table that say something else
MISSING = ("", "nan", "na", "n/a", "none", "null")
LAYOUTS = f"images with a {TABLE} (id, and a column of classes or a 0/1 column for each label), a folder a class, or MedMNIST's .npz"
NOT = "not "  # the class of a single 0/1 column's zeros
NAMED = 5  # of many bad ids


def find(root: Path, masks: bool = False, classes: Sequence[str] | None = None, hear: Hear = stop) -> Source:
    """All labelled cases. hear: as of `sources.find`. classes: columns of the table, or the classes in their order as training wrote them down; None: what is there."""
    if not root.exists():
        raise InputError(f"{root} does not exist; check the path of the data")
    if root.suffix.lower() == ".npz":
        return _medmnist(root, classes)
    if (root / TABLE).is_file():
        return _with_table(sources.find(root, masks, hear), root, classes, hear)
    folders = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")] if root.is_dir() else []
    held = [one for one in folders if listing(one)]
    words = {one.name.lower() for one in folders}
    masked = {"images", "masks"} & {one.name for one in folders} or ({*sources.IMAGES} & words and {*sources.MASKS} & words)
    if len(held) > 1 and not masked:
        return _by_folder(root, held, classes, hear)
    raise InputError(f"{root} has no labels in a layout that somite knows: it should hold {LAYOUTS}")


def contradictions(cases: Sequence[Case]) -> list[tuple[Case, Case]]:
    """Pairs of cases whose images are the same to the last bit and whose labels are not."""
    first: dict[object, Case] = {}
    found = []
    for case in cases:
        other = first.setdefault(_content(case), case)
        if other.labels != case.labels:
            found.append((other, case))
    return found


def _content(case: Case) -> object:
    return tuple(map(sha256, case.files)) if case.packed is None else (case.packed.pixels.shape, case.packed.pixels.tobytes())


def _with_table(source: Source, root: Path, classes: Sequence[str] | None, hear: Hear) -> Source:
    path = root / TABLE
    table = rows(path, ("id",))
    named = {row["id"]: row for row in table}
    if len(named) < len(table):
        twice = next(row["id"] for index, row in enumerate(table) if row["id"] in [other["id"] for other in table[:index]])
        raise InputError(f"{path} has the id {twice!r} again: keep one row for each image")
    lost = [name for name in named if name not in source.cases and name not in source.excluded]
    _tell("has ids without an image", path, lost, "rows", hear)
    _tell("has no row for images that are there", path, [name for name in source.cases if name not in named], "images", hear)
    kept = [named[name] for name in source.cases if name in named]
    names, vectors = _labels(path, kept, classes)
    cases = dict(source.cases)
    grouped = "group" in table[0] and not (root / "groups.csv").is_file()
    for row, vector in zip(kept, vectors, strict=True):
        case = replace(cases[row["id"]], labels=vector)
        cases[case.id] = replace(case, group=_filled(path, row, "group")) if grouped else case
    splits = source.splits
    if "split" in table[0] and not splits and any(row["split"] for row in kept):
        splits = {}
        for row in kept:
            splits.setdefault(_filled(path, row, "split"), []).append(row["id"])
    return Source(cases, check_splits(path, splits, cases, hear), source.excluded, names)


def _tell(what: str, path: Path, names: Sequence[str], nouns: str, hear: Hear) -> None:
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        text = (
            f"{path} {what} ({len(names)} {nouns}: {', '.join(names[:NAMED])}{more}): "
            'add what is missing, or leave them out by splits.json ("excluded": {id: why})'
        )
        hear(FlawError(text, "label-without-image" if nouns == "rows" else "image-without-label", names))


def _filled(path: Path, row: Mapping[str, str], column: str) -> str:
    """A cell that may not be empty."""
    value = row[column]
    if value.lower() in MISSING:
        raise InputError(f"{path} has no {column} for {row['id']!r} ({value or 'empty'!r}): fill it in, or remove the row and its image")
    return value


def _labels(
    path: Path, table: Sequence[Mapping[str, str]], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    """The classes, and which of them each row has."""
    columns = _columns(path, table, classes)
    cells = {name: [_filled(path, row, name) for row in table] for name in columns}
    if len(columns) > 1:
        odd = next((name for name in columns if not _binary(cells[name])), None)
        if odd is not None:
            raise InputError(f"{path} has something else than 0 and 1 in the column {odd!r}: of several columns each is one label, 0 or 1")
        return tuple(columns), list(zip(*[[float(value) for value in cells[name]] for name in columns], strict=True))
    (column,) = columns
    values = cells[column]
    if _binary(values) and (classes is None or set(classes) in ({column}, {column, NOT + column})):
        values = [column if float(value) else NOT + column for value in values]
        names = [NOT + column, column]
    else:
        names = _ordered(values) if classes is None or list(classes) == [column] else list(classes)
    return _one_of(path, names, values, [row["id"] for row in table])


def _columns(path: Path, table: Sequence[Mapping[str, str]], classes: Sequence[str] | None) -> list[str]:
    """The columns that hold classes: those that are asked for by their names or by the classes in them, or all if they can only mean that."""
    free = [name for name in table[0] if name not in NO_CLASSES]
    asked = list(dict.fromkeys(one if one in free else one.removeprefix(NOT) for one in classes or ()))
    named = [one for one in asked if one in free]
    if named and len(named) == len(asked):
        return named
    holding = free if classes is None else [name for name in free if {row[name] for row in table} & set(classes)]
    if len(holding) == 1 or (holding and classes is None and all(_binary([row[name] for row in table]) for name in holding)):
        return holding
    told = f"none of {', '.join(classes)}" if classes and not holding else f"the columns {', '.join(holding) or 'id alone'}"
    raise InputError(f"{path} has {told}: say which columns hold the classes, --data.classes [{(free or ['NAME'])[0]}]")


def _binary(values: Sequence[str]) -> bool:
    return {*values} <= {"0", "1", "0.0", "1.0"}


def _ordered(values: Sequence[str]) -> list[str]:
    """Integers by size, names by the alphabet."""
    found = {*values}
    return sorted(found, key=int) if all(one.lstrip("-").isdigit() for one in found) else sorted(found)


def _one_of(path: Path, names: Sequence[str], values: Sequence[str], ids: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    if len(names) < 2:
        raise InputError(f"{path} has one class alone ({', '.join(names)}), from which nothing can be told apart: add images of another")
    for name, value in zip(ids, values, strict=True):
        if value not in names:
            raise InputError(
                f"{path} has the class {value!r} ({name}), which is none of {', '.join(names)}: mend it, or train with it (--data.classes)"
            )
    return tuple(names), [tuple(float(value == name) for name in names) for value in values]


def _by_folder(root: Path, folders: Sequence[Path], classes: Sequence[str] | None, hear: Hear) -> Source:
    """Cases are called CLASS-NAME, since files of two classes may share a name."""
    cases: dict[str, Case] = {}
    excluded = sources.excluded(root)
    for folder in folders:
        for name, file in by_stem(listing(folder), hear).items():
            case = f"{folder.name}-{name}"
            if case not in excluded:
                cases[case] = Case(case, (file,), None, case)
    values = [case.images[0].parent.name for case in cases.values()]
    names, vectors = _one_of(root, list(classes or _ordered(values)), values, list(cases))
    made = {case.id: replace(case, labels=vector) for case, vector in zip(cases.values(), vectors, strict=True)}
    return replace(sources.annotated(root, made, hear), classes=names)


def _medmnist(path: Path, classes: Sequence[str] | None) -> Source:
    splits = [name.removesuffix("_images") for name in packed.names(path) if name.endswith("_images")]
    lacking = next(
        (f"{split}_labels" for split in splits if f"{split}_labels" not in packed.names(path)), None if splits else "train_images"
    )
    if lacking:
        raise InputError(f"{path} has no array {lacking}, as MedMNIST's files do: give one of them")
    found = {split: packed.array(path, f"{split}_labels") for split in splits}
    widths = {split: one[0].size if len(one) else 0 for split, one in found.items()}
    if 0 in widths.values() or len({*widths.values()}) > 1:
        told = ", ".join(f"{width} in {split}" for split, width in widths.items())
        raise InputError(f"{path} has labels of different lengths or none ({told}): MedMNIST's files give each image of each split as many")
    labels = np.concatenate([one.reshape(len(one), -1) for one in found.values()])
    ids = [f"{split}-{index:05d}" for split, one in found.items() for index in range(len(one))]
    if labels.shape[1] > 1:
        names = tuple(classes or map(str, range(labels.shape[1])))
        if len(names) != labels.shape[1] or not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"{path} has {labels.shape[1]} labels an image where {len(names)} of 0 and 1 were wanted: correct --data.classes"
            )
        vectors = [tuple(map(float, row)) for row in labels]
    else:
        values = [str(int(value)) for value in labels[:, 0]]
        names, vectors = _one_of(path, list(classes or _ordered(values)), values, ids)
    cases = {}
    for name, vector in zip(ids, vectors, strict=True):
        split, _, index = name.rpartition("-")
        cases[name] = Case(name, (), None, name, vector, Packed(path, f"{split}_images", int(index)))
    return Source(cases, {split: [name for name in ids if name.rpartition("-")[0] == split] for split in splits}, classes=names)
