"""What the layouts of data sets have in common: files by name, channels in order, tables, lists of ids."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .dicom import is_series
from .record import SUFFIXES, Case, stem, suffix_of

NO_IMAGES = f"has no images in it ({', '.join(SUFFIXES)}; or folders of DICOM slices)"


class FlawError(InputError):
    """What is wrong with a data set before any file is opened. kind: a word for it; named: the files or ids that it is true of."""

    def __init__(self, text: str, kind: str = "listing", named: Iterable[object] = ()) -> None:
        super().__init__(text)
        self.kind, self.named = kind, tuple(map(str, named))


Hear = Callable[[FlawError], None]  # what becomes of a flaw; where it returns, the listing goes on without what is flawed


def stop(flaw: FlawError) -> None:
    """What everything does with a flaw but the doctor, who wants to hear all of them."""
    raise flaw


@dataclass(frozen=True)
class Source:
    """All cases of a data set, and its splits as ids, if it brings any; the ids that it leaves out; the names of its classes."""

    cases: dict[str, Case]
    splits: dict[str, list[str]] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    classes: tuple[str, ...] = ()

    @property
    def all(self) -> list[Case]:
        return [self.cases[name] for name in sorted(self.cases)]

    def split(self, name: str) -> list[Case]:
        return [self.cases[i] for i in sorted(self.splits[name])]


def listing(folder: Path) -> list[Path]:
    """The files in a folder that somite can read, and the folders that are a DICOM series, by name; hidden ones are the system's."""
    seen = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in seen if (suffix_of(path) if path.is_file() else is_series(path)))


def by_stem(files: Iterable[Path], hear: Hear = stop) -> dict[str, Path]:
    """Files by name without suffix, which is what a case is called."""
    return together({}, ((stem(path), path) for path in files), hear)


def together(named: dict[str, Path], more: Iterable[tuple[str, Path]], hear: Hear = stop) -> dict[str, Path]:
    """Cases by name with more of them; what two files are called, the first of them keeps."""
    for name, path in more:
        other = named.setdefault(name, path)
        if other != path:
            hear(FlawError(f"{other} and {path} have the same name without suffix: {_apart(path)}", "same-name", (other, path)))
    return named


def _apart(path: Path) -> str:
    return "rename one, or give the folder above both" if is_series(path) else "rename or remove one"


def in_order(name: str, parts: Mapping[int, Path], channels: int) -> tuple[Path, ...]:
    """The files of channels 0, 1, 2 ..., all of which must be there."""
    if sorted(parts) != list(range(channels)):
        text = (
            f"{next(iter(parts.values())).parent / name} has the channels {sorted(parts)} where 0 to {channels - 1} "
            "were wanted: add the missing files (_0000, _0001 ...)"
        )
        raise FlawError(text, "missing-channel", parts.values())
    return tuple(parts[channel] for channel in range(channels))


def check_splits(path: Path, splits: Mapping[str, Sequence[str]], cases: Mapping[str, Case], hear: Hear = stop) -> dict[str, list[str]]:
    """Every id of a split has files, and stands in one split only, once; and so does every group (patient). Returns the splits, of
    what is flawed what can be used.
    """
    home: dict[str, str] = {}
    seen: dict[str, tuple[str, str]] = {}
    kept: dict[str, list[str]] = {name: [] for name in splits}
    for name, ids in splits.items():
        for i in ids:
            if i not in cases:
                hear(FlawError(f"{path} lists {i!r} in {name} but no such case exists: add its files or drop the id", "unknown-id", (i,)))
                continue
            if i in home:
                hear(FlawError(f"{path} lists {i!r} in {home[i]} and again in {name}: keep it in one", "case-in-two-splits", (i,)))
                continue
            home[i] = name
            kept[name].append(i)
            other, first = seen.setdefault(cases[i].group, (name, i))
            if other != name:
                text = (
                    f"{path} puts {first!r} into {other} and {i!r} into {name}, but both are of {cases[i].group!r}: "
                    "keep a group (a patient) in one split, or what is learned of it is tested on it"
                )
                hear(FlawError(text, "group-in-two-splits", (first, i)))
    return kept


def rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV table that has the needed columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            named = ({k: v for k, v in row.items() if k is not None} for row in table)  # None: cells beyond the last column
            found = [{str(k).strip(): str(v or "").strip() for k, v in row.items()} for row in named]
            columns = [name.strip() for name in table.fieldnames or []]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV table in UTF-8 ({error}): save it as one") from error
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(
            f"{path} lacks the column {missing[0]!r} (it has: {', '.join(columns) or 'none'}): "
            "name the columns in the first line, separated by commas"
        )
    return found
