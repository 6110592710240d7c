"""Volumes of every format, by the ending of the name."""

from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Int32

from . import itk, nifti
from .geometry import Geometry, Volume

SUFFIXES = (*nifti.SUFFIXES, *itk.SUFFIXES)


def is_volume(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def read_volume(path: Path) -> Volume:
    """A volume as float32 with channels first, in the units of the file."""
    return _format(path).read_volume(path)


def read_labels(path: Path) -> tuple[Int32[np.ndarray, "x y z"], Geometry]:
    """The integer labels of a mask volume, and where it lies."""
    return _format(path).read_labels(path)


def _format(path: Path) -> ModuleType:
    return nifti if path.name.lower().endswith(nifti.SUFFIXES) else itk
