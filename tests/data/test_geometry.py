"""The same voxels in another order of axes, as nibabel makes them; nibabel's as_closest_canonical is the judge."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from somite.data.record import Case, read
from somite.errors import InputError

VALUES = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
LABELS = (VALUES > 0).astype(np.uint8)
CODES = ["LPS", "RAS", "PIR", "SLA", "IPL", "ASR"]


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    affine = np.diag([-0.7, -1.3, 2.9, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = -31.25, 17.1, 3.3
    return affine


def in_codes(array, affine, codes):
    """The same voxels with their axes in another order: nibabel moves the affine with them."""
    image = nib.Nifti1Image(array, affine)
    return image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))


@pytest.mark.parametrize("degrees", [0, 30])
@pytest.mark.parametrize(("mine", "yours"), itertools.pairwise([*CODES, "LPS"]))
def test_masks_and_channels_in_another_order_of_axes_are_those_of_the_same_voxels(tmp_path, mine, yours, degrees):
    affine = turned(degrees)
    for name, array, codes in (("a", VALUES, mine), ("b", VALUES + 1, yours), ("m", LABELS, yours)):
        nib.save(in_codes(array, affine, codes), tmp_path / f"{name}.nii.gz")
    case = Case("a", (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"), tmp_path / "m.nii.gz", "a")
    record = read(case)
    assert np.array_equal(record.image[0], np.asarray(in_codes(VALUES, affine, mine).dataobj))
    assert np.array_equal(record.labels, record.image[0] > 0)
    assert np.array_equal(record.image[1], record.image[0] + 1)
    assert np.array_equal(record.geometry.affine, nib.load(tmp_path / "a.nii.gz").affine)


def test_another_grid_is_another_grid_in_any_order_of_axes(tmp_path):
    nib.save(nib.Nifti1Image(VALUES, turned(0)), tmp_path / "a.nii.gz")
    shifted = turned(0)
    shifted[2, 3] += 1
    for array, affine, words in (
        (LABELS, shifted, "different places"),
        (LABELS, turned(5), "different places"),
        (LABELS[:, :, :6], turned(0), "5 x 6 x 6"),
        (np.zeros((7, 6, 5), np.uint8), turned(0), "7 x 6 x 5"),
    ):
        nib.save(in_codes(array, affine, "RAS"), tmp_path / "m.nii.gz")
        with pytest.raises(InputError, match=words):
            read(Case("a", (tmp_path / "a.nii.gz",), tmp_path / "m.nii.gz", "a"))
