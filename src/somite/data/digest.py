"""What a report says of the data it was made from."""

import hashlib
from collections.abc import Sequence

from ..files import sha256
from .record import Case


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
