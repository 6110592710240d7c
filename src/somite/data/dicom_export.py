"""What a PACS or a CD gives: patients, studies and series as folders in folders, scans among reports, screenshots and localisers.

Only what says what a file is, is looked at: the class in its first lines (PS3.10, 7.1), which need no library.
"""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ..errors import InputError
from . import dicom
from .dicom_class import kind_of

INDEX = "DICOMDIR"  # names all files below its folder; the folder says the same
_LONGEST = 150  # bytes of a case's name, which endings of outputs follow in file names of 255


def series_below(root: Path) -> Iterator[Path]:
    """All folders below one that hold DICOM files, by name, whatever these are; hidden folders and links to folders are passed over."""
    for folder, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        path = Path(folder)
        if path != root and dicom.is_series(path):
            yield path


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
    found: dict[str, Path] = {}
    left: dict[Path, str] = {}
    for path in series_below(root):
        if other := no_scan(path):
            left[path] = other
        else:
            found[_named(path.relative_to(root))] = path
    return found, left


def masks_refused(path: Path) -> InputError:
    """DICOM files in a folder where masks were wanted."""
    first = dicom.files(path)[0]
    return InputError(
        f"{first} is {kind_of(first) or 'a DICOM image'}, and DICOM is no mask that somite reads: save the mask as a volume of integers (NIfTI, "
        "NRRD) under the name of its image, as 3D Slicer does of a DICOM-SEG or RTSTRUCT"
    )


def _named(below: Path) -> str:
    name = "_".join(below.parts)
    if len(name.encode()) <= _LONGEST:
        return name
    end = name.encode()[-_LONGEST + 9 :].decode(errors="ignore").strip()
    return f"{sha256(name.encode()).hexdigest()[:8]}_{end}"
