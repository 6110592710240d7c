"""What a teacher said: maps of probabilities beside the images that they are of, for training alone.

`CASE_probability.png` (65535 is 1) or `.nii.gz` of a binary mask; of several classes one map a class, named by its value in mask files,
`CASE_probability-0.png` ...: the files that `somite predict` writes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ..errors import InputError
from . import images, volumes
from .fit import fitted
from .record import SUFFIXES, Case, Record
from .sources import find

BINARY = ((0, 1), (0, 255))  # how the two classes of a binary mask may be called
MARK = "unlabelled-"  # before the ids, so that none meets one of the data's own


@dataclass(frozen=True)
class Soft:
    """folder: of the maps, by case id. unlabelled: a folder of further images, in any layout that `Data` reads, whose masks (if any) are
    passed over; they join the training split, and nothing but what the teacher says of them is learned.
    """

    folder: str
    unlabelled: str | None = None

    def cases(self) -> list[Case]:
        """The unlabelled ones."""
        if self.unlabelled is None:
            return []
        root = Path(self.unlabelled)
        if root.is_dir() and not any(root.iterdir()):
            raise InputError(f"{root} is empty: put the images in that have no masks, or leave --unlabelled out")
        return [replace(case, id=f"{MARK}{case.id}", mask=None, group=f"{MARK}{case.group}", labels=None) for case in find(root, False).all]

    def files(self, case: str, values: tuple[int, ...] | None) -> list[Path]:
        """The maps of a case: one, or one a class. Raises InputError where they are not there."""
        folder = Path(self.folder)
        one = found(folder, f"{case}_probability")
        if one is not None:
            return [one]
        for tags in ((values,) if values else ()) + BINARY:
            there = [path for tag in tags if (path := found(folder, f"{case}_probability-{tag}")) is not None]
            if len(there) == len(tags):
                return there
            if values and len(values) > 2:
                break
        raise InputError(
            f"{folder} has no {case}_probability{f'-{values[0]}' if values else ''}, what the teacher says of this training image: let "
            "somite distil make it, or put it there"
        )

    def maps(self, record: Record) -> Float32[np.ndarray, "k *s"]:
        """In the case's own geometry."""
        paths = self.files(record.case.id, record.values)
        maps = np.concatenate([read_map(path, record) for path in paths])
        if not (np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1):
            raise InputError(f"{paths[0]} holds no probabilities (they lie in [0, 1]): make it again")
        return maps


def read_map(path: Path, record: Record) -> Float32[np.ndarray, "1 *s"]:
    if volumes.is_volume(path):
        volume = volumes.read_volume(path)
        array, where = volume.array, volume.geometry
    else:
        array, where = images.read_image(path), None
    if len(array) != 1:
        raise InputError(f"{path} is in colour, and a map of probabilities is grey: make it again")
    return fitted(path, array, where, record.case.images[0], record.shape, record.geometry)


def found(folder: Path, name: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)
