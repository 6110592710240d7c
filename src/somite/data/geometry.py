"""Where a volume lies in space: somite's own record, which every format fills alike and every writer takes."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Float64
from nibabel.affines import voxel_sizes

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM, NRRD and MetaImage count x to the left and y to the back; NIfTI and we the other way


@dataclass(frozen=True)
class Series:
    """The files of a DICOM series in the order of the volume's third axis, one a slice."""

    files: tuple[Path, ...]


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
class Volume:
    """A volume in memory, in the units of the file (Hounsfield units for CT)."""

    array: Float32[np.ndarray, "c x y z"]
    geometry: Geometry
