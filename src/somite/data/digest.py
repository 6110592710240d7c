"""What tells data apart: their contents, for reports, and quicker their files' sizes and times, for what is kept of them."""

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..files import sha256
from .record import Case


def files_of(case: Case) -> list[Path]:
    """All files of a case: image, mask, or the file in which it lies among many."""
    return [*case.files, *([] if case.mask is None else [case.mask]), *([] if case.packed is None else [case.packed.path])]


def digest(cases: Sequence[Case]) -> str:
    """One SHA-256 over the ids, the contents of the files and the labels: equal wherever the data lie and in whatever order."""
    total = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.id):
        files = [*case.files, *([] if case.mask is None else [case.mask])]
        row = [case.id, str(len(case.images)), *map(sha256, files)]
        if case.packed is not None:
            row.append(hashlib.sha256(case.packed.pixels.tobytes()).hexdigest())
        if case.labels is not None:
            row.append(repr(case.labels))
        total.update(("\x1f".join(row) + "\x1e").encode())
    return total.hexdigest()


def content(case: Case) -> str:
    """One SHA-256 over what is in a case's image, whatever it is called and whatever its mask."""
    total = hashlib.sha256("".join(map(sha256, case.files)).encode())
    if case.packed is not None:
        total.update(case.packed.pixels.tobytes())
    return total.hexdigest()


def stamp(case: Case) -> tuple[object, ...]:
    """Everything of a case but the contents of its files, for which size and time of change stand; on one machine."""
    files = files_of(case)
    rest = () if case.packed is None else (case.packed.name, case.packed.index)
    return case.id, case.labels, rest, *(one for file in files for one in stamped(file))


def stamped(file: Path) -> list[object]:
    """With the file that a header of its own kind speaks of, which has its name."""
    apart = file.suffix.lower() in (".mhd", ".nhdr")
    seen = sorted(file.parent.glob(f"{glob.escape(file.stem)}.*")) if apart else [file]
    return [(str(one.resolve()), one.stat().st_size, one.stat().st_mtime_ns) for one in seen]


def summary(cases: Sequence[Case]) -> dict[str, int]:
    """How many cases, patients, masks, files and bytes."""
    masks = [case.mask for case in cases if case.mask is not None]
    many = {case.packed.path for case in cases if case.packed is not None}
    files = [*(path for case in cases for path in case.files), *masks, *many]
    return {
        "cases": len(cases),
        "groups": len({case.group for case in cases}),
        "masks": len(masks),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }
