"""Masks of several raters, in `raters/` beside `images/` and `masks/`.

- one file a rater: `raters/x_0.png`, `raters/x_1.png` ... for the case x, numbered from 0 without a gap; or
- one bit field a case: `raters/x.png`, in which rater r marked what (value >> r) & 1 says, r = 0 .. 3 (LIDC's four raters).

NIfTI files (`x_0.nii.gz`) are read alike. Where both are there the bit field is the case's: x_0 may be a case of its own.
The order of raters means nothing, neither here nor to any measure: in LIDC number 0 is another person in each case.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from ..errors import InputError
from .record import SUFFIXES, Case, read

BITS = 4  # raters in a bit field


def raters_of(case: Case, folder: Path) -> Bool[np.ndarray, "r *s"]:
    """What each of a case's raters marked, in the case's own geometry; `folder` holds the raters' files.

    Raises InputError where there are fewer than two raters, a number is left out, or a file does not fit the image.
    """
    field = _found(folder, case.id)
    if field is not None:
        return _unpacked(case, field)
    paths = {number: path for number in range(100) if (path := _found(folder, f"{case.id}_{number}")) is not None}
    if len(paths) < 2:
        have = "no mask" if not paths else f"only one mask ({next(iter(paths.values())).name})"
        raise InputError(
            f"{folder} has {have} of the raters of {case.id}: add one file a rater, {case.id}_0.png, {case.id}_1.png and so on, or one bit field {case.id}.png"
        )
    missing = next((number for number in range(len(paths)) if number not in paths), None)
    if missing is not None:
        raise InputError(
            f"{folder} has {paths[max(paths)].name} but no {case.id}_{missing}: add it, or number the raters of a case from 0 on"
        )
    return np.stack([_labels(replace(case, mask=paths[number])) > 0 for number in sorted(paths)])


def folder_of(root: Path) -> Path:
    """The folder of the raters' masks in a data set: `raters/` in the folder, or beside the table."""
    folder = (root.parent if root.is_file() else root) / "raters"
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: put the raters' masks there, x_0.png and x_1.png for two raters of the image x")
    return folder


def _found(folder: Path, name: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def _unpacked(case: Case, path: Path) -> Bool[np.ndarray, "r *s"]:
    values = _labels(replace(case, mask=path), tuple(range(256)))
    if values.max() >= 2**BITS:
        raise InputError(
            f"{path} has the value {values.max()}, but a bit field of {BITS} raters ends at {2**BITS - 1}: write one file a rater, {case.id}_0.png, {case.id}_1.png and so on"
        )
    return np.stack([(values >> rater) & 1 > 0 for rater in range(BITS)])


def _labels(case: Case, values: tuple[int, ...] | None = None) -> np.ndarray:
    """Read as a case's mask is, and so held to its size and place."""
    labels = read(case, values).labels
    assert labels is not None  # the case has a mask
    return labels
