"""Whether two files of one case, mask and image or two channels, are of the same kind, size and place."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from ..errors import InputError
from .geometry import Geometry, aligned, moved

_AFFINE_TOLERANCE = 1e-3  # mm; headers are written in single precision


def fitted(
    path: Path,
    array: Shaped[np.ndarray, "..."],
    geometry: Geometry | None,
    other: Path,
    other_shape: tuple[int, ...],
    other_geometry: Geometry | None,
) -> Shaped[np.ndarray, "..."]:
    """The array of one file in the order of axes of the other, whose voxels it must have. Raises InputError where it has not."""
    if (geometry is None) != (other_geometry is None):
        raise InputError(f"of {path} and {other} one is a volume and one a flat image: store both as volumes (NIfTI)")
    shape = array.shape[-len(other_shape) :]
    if geometry is not None and other_geometry is not None:
        there = moved(geometry, other_geometry)
        if there.shape == other_shape and _apart(there, other_geometry) <= _AFFINE_TOLERANCE:
            return aligned(array, geometry, other_geometry)
    if shape != other_shape:
        size, other_size = (" x ".join(map(str, s)) for s in (shape, other_shape))
        raise InputError(f"{path} is {size} but {other} is {other_size}: resample one to the size of the other")
    if geometry is not None and other_geometry is not None:
        raise InputError(
            f"{path} and {other} lie in different places (their affines differ by up to {_apart(geometry, other_geometry):.3g}): "
            "resample one onto the other, or copy the header if the voxels correspond"
        )
    return array


def _apart(one: Geometry, other: Geometry) -> float:
    return float(np.abs(one.affine - other.affine).max())
