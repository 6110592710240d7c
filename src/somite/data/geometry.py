"""Where a volume lies in space: somite's own record, which every format fills alike and every writer takes."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Float64, Shaped
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM, NRRD and MetaImage count x to the left and y to the back; NIfTI and we the other way


@dataclass(frozen=True)
class Series:
    """The files of a DICOM series in the order of the volume's third axis, one a slice; modality: as they say it, CT or MR."""

    files: tuple[Path, ...]
    modality: str = ""


@dataclass(frozen=True, eq=False)
class Geometry:
    """The place of a grid of voxels.

    affine: from voxel indices to millimetres, x to the patient's right, y to the front, z to the head (RAS, as NIfTI has it).
    shape: voxels an axis.
    source: what else the file said, from which a writer of its own format repeats what `affine` cannot hold: a NIfTI header (codes,
    quaternion, units), bit for bit, or the slices of a DICOM series. None where there is no more to say.
    """

    affine: Float64[np.ndarray, "4 4"]
    shape: tuple[int, ...]
    source: nib.Nifti1Header | Series | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        x, y, z = (float(size) for size in voxel_sizes(self.affine))
        return x, y, z


@dataclass(frozen=True)
class Header:
    """What a file says of its image before any pixel is read.

    stored: the type of its numbers (uint8, int16, float32), as numpy calls it. quality: of a JPEG, 1 to 100 as libjpeg counts. geometry: of a volume.
    """

    shape: tuple[int, ...]  # of space alone
    channels: int
    stored: str
    geometry: Geometry | None = None
    quality: int | None = None


@dataclass(frozen=True)
class Volume:
    """A volume in memory, in the units of the file (Hounsfield units for CT)."""

    array: Float32[np.ndarray, "c x y z"]
    geometry: Geometry


def aligned(array: Shaped[np.ndarray, "*c x y z"], where: Geometry, like: Geometry) -> Shaped[np.ndarray, "*c a b d"]:
    """An array of one grid in the order of another's axes, as far as turning axes round and swapping them goes; nothing is resampled.

    Converters differ in it: dcm2niix turns the rows of a DICOM series round, SimpleITK does not.
    """
    return np.moveaxis(apply_orientation(np.moveaxis(array, (-3, -2, -1), (0, 1, 2)), _turn(where, like)), (0, 1, 2), (-3, -2, -1))


def moved(where: Geometry, like: Geometry) -> Geometry:
    """Where an array lies once it is `aligned`."""
    turn = _turn(where, like)
    shape = apply_orientation(np.broadcast_to(np.uint8(0), where.shape), turn).shape
    return Geometry(where.affine @ inv_ornt_aff(turn, where.shape), shape)


def _turn(where: Geometry, like: Geometry) -> np.ndarray:
    """For each axis which of `like`'s it is nearest to, and whether they run against each other."""
    return io_orientation(np.linalg.solve(like.affine, where.affine))
