"""What a PACS or a CD gives: patients, studies and series as folders in folders, scans among reports, screenshots and localisers.

What a file is says the class in its first lines (PS3.10, 7.1); of images, which scans are too, their header is read.
"""

import os
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from ..errors import InputError
from . import dicom
from .dicom_class import kind_of

INDEX = "DICOMDIR"  # names all files below its folder; the folder says the same
_LONGEST = 150  # bytes of a case's name, which endings of outputs follow in file names of 255


def series_below(root: Path) -> Iterator[Path]:
    """All folders below one that hold DICOM files, by name, whatever these are; hidden folders and links to folders are passed over."""
    return (path for path, _, _ in _folders(root) if path != root and dicom.is_series(path))


def _folders(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and all below it, with the names of the folders and files in each. Raises OSError where one cannot be looked into."""
    for folder, below, names in os.walk(root, onerror=_refuse):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), below, sorted(name for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    raise error  # os.walk would go on, and a patient be missing without a word


def no_scan(folder: Path) -> str:
    """What a folder of DICOM files holds where not one of them is a slice of a scan, else nothing.

    What is damaged, or may be meant as a scan, is not judged here: reading it says what is wrong.
    """
    other = ""
    for path in dicom.files(folder):
        kind = kind_of(path) or dicom.picture(path)
        if not kind:
            return ""
        other = other or kind
    return other


def scans_below(root: Path) -> tuple[dict[str, Path], dict[Path, str]]:
    """The series below a folder by their names as cases, which are their paths from there; and what was left out, with what it is."""
    scans: list[Path] = []
    left: dict[Path, str] = {}
    other_kinds: list[Path] = []
    for path, below, names in _folders(root):
        left |= {path / name: "a link to a folder: name what it leads to" for name in below if (path / name).is_symlink()}
        other_kinds += [path / name for name in names if name.lower().endswith(dicom.IMAGES)]
        if path == root or not dicom.is_series(path):
            continue
        if other := no_scan(path):
            left[path] = other
        else:
            scans.append(path)
    if other_kinds:
        left[other_kinds[0]] = f"no DICOM{f', and {len(other_kinds) - 1:,} more' if len(other_kinds) > 1 else ''}: name the folder"
    alike = Counter(_joined(path.relative_to(root)) for path in scans)
    return {_named(path.relative_to(root), alike[_joined(path.relative_to(root))] > 1): path for path in scans}, left


def masks_refused(path: Path) -> InputError:
    """DICOM files in a folder where masks were wanted."""
    first = dicom.files(path)[0]
    return InputError(
        f"{first} is {kind_of(first) or 'a DICOM image'}, and DICOM is no mask that somite reads: save the mask as a volume of integers (NIfTI, "
        "NRRD) under the name of its image, as 3D Slicer does of a DICOM-SEG or RTSTRUCT"
    )


def _joined(below: Path) -> str:
    return "_".join(below.parts)


def _named(below: Path, shared: bool) -> str:
    """shared: whether another path reads the same with its folders joined, as a_b/c and a/b_c do."""
    name = _joined(below)
    if len(name.encode()) <= _LONGEST and not shared:
        return name
    end = name.encode()[-_LONGEST + 9 :].decode(errors="ignore").strip()
    return f"{sha256(below.as_posix().encode()).hexdigest()[:8]}_{end}"
