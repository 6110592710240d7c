"""What the voxels of a volume may hold, whatever format they came in: numbers, all finite; in masks whole numbers from 0."""

import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from ..errors import InputError


class NotFiniteError(InputError):
    """Numbers that are NaN or infinite."""


def as_channels(values: np.ndarray, path: Path) -> Float32[np.ndarray, "c x y z"]:
    """(x, y, z) or (x, y, z, ..., c, ...) with one axis at most after the third that is longer than 1, as float32, channels first."""
    try:
        array = values.astype(np.float32, copy=False).reshape(*values.shape[:3], -1)
    except MemoryError as error:
        raise too_large(path) from error
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise NotFiniteError(f"{path} has {bad} voxels that are NaN or infinite: replace them, by 0 or the value of air, and save it")
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def as_labels(values: np.ndarray, path: Path) -> Int32[np.ndarray, "x y z"]:
    """The integer labels of a mask."""
    if values.size != np.prod(values.shape[:3]):
        raise InputError(f"{path} is a mask of shape {values.shape}: a mask has one channel, of integer labels")
    values = values.reshape(values.shape[:3])
    whole = np.rint(values)
    off = np.abs(values - whole).max()  # scl_slope rounds: hence a tolerance
    if not np.isfinite(off) or off > 1e-3 or whole.min() < 0:
        raise InputError(f"{path} is a mask with values that are no labels: save it as integers from 0 (0, 1, 2 ...)")
    return whole.astype(np.int32)


def memory() -> float:
    """Bytes of memory in this machine; inf where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def too_large(path: Path) -> InputError:
    return InputError(f"{path} needs more memory than there is: crop or resample it, or use a machine with more")


def too_short(path: Path, promised: int, size: int) -> InputError:
    """A file that cannot hold what its header says."""
    return InputError(
        f"{path} is truncated or damaged (its header promises {promised} bytes, more than its {size} can hold): copy it again from its origin"
    )
