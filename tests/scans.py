"""Small CT-like volumes in any order of axes, on which nibabel's reorientation and the affine are the judges."""

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from somite.data.normalise import Normalise
from somite.data.record import Case

SHAPE = (60, 52, 36)
AIR, SOFT = -1000.0, 40.0


def oblique(degrees):
    """Voxels of 1.1 x 0.9 x 2.5 mm, turned about the long axis and about the one to the front."""
    a, b = np.radians([degrees, degrees / 2])
    long = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    front = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = long @ front @ np.diag([1.1, 0.9, 2.5])
    affine[:3, 3] = -30, 12, 700
    return affine


def body(padding=AIR):
    """Soft tissue in air, brighter to the right, the front and the head; a ball in it is the label. padding: outside of the scanner's circle."""
    grid = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in SHAPE], indexing="ij"), -1) / SHAPE
    inside = (np.abs(grid - 0.5) < [0.35, 0.3, 0.4]).all(-1)
    image = np.where(inside, SOFT + 100 * grid @ [1, 2, 4], AIR)
    image[((grid[..., :2] - 0.5) ** 2).sum(-1) > 0.25] = padding
    labels = (((grid - [0.4, 0.55, 0.45]) / [0.16, 0.2, 0.22]) ** 2).sum(-1) < 1
    return image.astype(np.int16), labels.astype(np.uint8)


def write(folder, codes, degrees=0, padding=AIR, bubble=False):
    """The case in another order of axes. bubble: with air in the middle of the body."""
    affine = oblique(degrees)
    image, labels = body(padding)
    if bubble:
        image[25:30, 22:30, 15:20] = AIR
    for kind, array in (("images", image), ("masks", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(reoriented(array, affine, codes), folder / kind / "a.nii.gz")
    return Case("a", (folder / "images" / "a.nii.gz",), folder / "masks" / "a.nii.gz", "a")


def reoriented(array, affine, codes):
    return nib.Nifti1Image(array, affine).as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))


def located(path, codes="LPS", shape=SHAPE):
    """A volume of three channels that say where each voxel lies, in decimetres to the right, to the front and to the head."""
    affine = oblique(0)
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(reoriented((apply_affine(affine, voxels) / 100).astype(np.float32), affine, codes), path)


class Own(Normalise):
    """The data's own brightness, in which 0.5 and more is the label."""

    def __call__(self, image, case):
        return image
