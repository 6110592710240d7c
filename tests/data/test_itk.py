"""NRRD and MetaImage: SimpleITK and nibabel write and judge, and what is damaged is told before SimpleITK gives wrong voxels."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from somite.data.geometry import Geometry
from somite.data.itk import SUFFIXES, read_labels, read_volume
from somite.data.nifti import read_volume as read_nifti
from somite.data.nifti import write_volume
from somite.errors import InputError

VALUES = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
TURN, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
WHOLE = [".nrrd", ".mha"]
PARTED = [(".nhdr", ".raw", ".raw.gz"), (".mhd", ".raw", ".zraw")]


def image(values=VALUES):
    """SimpleITK's image of (x, y, z) or (x, y, z, c), oblique."""
    made = sitk.GetImageFromArray(values.transpose(2, 1, 0, *range(3, values.ndim)), isVector=values.ndim == 4)
    made.SetSpacing((0.7, 1.3, 2.9))
    made.SetDirection(TURN.ravel())
    made.SetOrigin((-31.25, 17.1, 3.3))
    return made


def saved(path, values=VALUES, packed=False):
    sitk.WriteImage(image(values), str(path), packed)
    return path


def refused(read, path, *words):
    with pytest.raises(InputError) as error:
        read(path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_voxels_and_places_are_those_of_simpleitk(tmp_path, suffix, packed):
    path = saved(tmp_path / f"a{suffix}", packed=packed)
    volume = read_volume(path)
    assert np.array_equal(volume.array[0], VALUES)
    assert volume.array.dtype == np.float32
    judge = image()
    for index in ((0, 0, 0), (4, 0, 0), (0, 5, 0), (4, 5, 6)):
        left_back = np.array(judge.TransformIndexToPhysicalPoint(index))
        assert np.allclose((volume.geometry.affine @ [*index, 1])[:3], left_back * [-1, -1, 1], atol=1e-4)
    assert np.allclose(volume.geometry.spacing_mm, (0.7, 1.3, 2.9))
    assert volume.geometry.shape == (5, 6, 7)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_the_same_scan_as_nifti_lies_in_the_same_place(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}")
    sitk.WriteImage(image(), str(tmp_path / "a.nii.gz"))
    here, there = read_volume(path), read_nifti(tmp_path / "a.nii.gz")
    assert np.array_equal(here.array, there.array)
    assert np.abs(here.geometry.affine - there.geometry.affine).max() < 1e-5
    write_volume(tmp_path / "b.nii.gz", here.array[0] > 0, here.geometry)
    assert np.abs(nib.load(tmp_path / "b.nii.gz").affine - nib.load(tmp_path / "a.nii.gz").affine).max() < 1e-5
    back = sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    assert np.allclose(back.GetDirection(), TURN.ravel(), atol=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(back).transpose(), VALUES > 0)


@pytest.mark.parametrize("suffix", WHOLE)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_labels_keep_their_values(tmp_path, suffix, dtype):
    labels = np.random.default_rng(0).integers(0, 120, (5, 6, 7))
    found, where = read_labels(saved(tmp_path / f"a{suffix}", labels.astype(dtype), packed=True))
    assert np.array_equal(found, labels)
    assert found.dtype == np.int32
    assert isinstance(where, Geometry)
    refused(read_labels, saved(tmp_path / f"b{suffix}"), f"b{suffix}", "no labels")


@pytest.mark.parametrize("suffix", WHOLE)
def test_components_are_channels(tmp_path, suffix):
    values = np.stack([VALUES, VALUES + 1], -1)
    path = saved(tmp_path / f"a{suffix}", values)
    assert np.array_equal(read_volume(path).array, [VALUES, VALUES + 1])
    refused(read_labels, saved(tmp_path / f"b{suffix}", (values > 0).astype(np.uint8)), "one channel")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", WHOLE)
def test_damage_is_told_and_nothing_is_said_beside_it(tmp_path, suffix, packed, capfd):
    path = saved(tmp_path / f"a{suffix}", packed=packed)
    content = path.read_bytes()
    for keep in (0, 1, 10, len(content) // 2, len(content) - 20, len(content) - 5):
        path.write_bytes(content[:keep])
        refused(read_volume, path, str(path))
    if packed:  # only the checksum at the end tells
        spoilt = bytearray(content)
        spoilt[-30] ^= 1
        path.write_bytes(spoilt)
        refused(read_volume, path, "damaged")
    path.write_text("no volume " * 100)
    refused(read_volume, path, "damaged")
    refused(read_volume, tmp_path / f"none{suffix}", "does not exist")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("suffix", "plain", "packed"), PARTED)
def test_voxels_in_a_file_of_their_own(tmp_path, suffix, plain, packed):
    for name, ending in (("a", plain), ("b", packed)):
        path = saved(tmp_path / f"{name}{suffix}", packed=name == "b")
        data = tmp_path / f"{name}{ending}"
        content = data.read_bytes()
        assert np.array_equal(read_volume(path).array[0], VALUES)
        data.write_bytes(content[: len(content) // 2])
        refused(read_volume, path, str(data), "truncated or damaged")
        data.unlink()
        refused(read_volume, path, str(path), str(data), "does not exist", ".mha or .nrrd")


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.mha")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"DimSize = 5 6 7", b"DimSize = 3200 320 320"))
    refused(read_volume, path, f"promises {3200 * 320 * 320 * 4} bytes")
    path.write_bytes(content.replace(b"DimSize = 5 6 7", b"DimSize = 32000 32000 32000"))
    refused(read_volume, path, "more memory")
    path.write_bytes(content)
    monkeypatch.setattr("somite.data.itk.memory", lambda: VALUES.size * 16 - 1)
    refused(read_volume, path, "more memory", "crop")


def test_flat_four_axes_complex_and_singular(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VALUES[0]), str(tmp_path / "a.mha"))
    refused(read_volume, tmp_path / "a.mha", "2 axes")
    sitk.WriteImage(sitk.GetImageFromArray(VALUES[None].repeat(2, 0), isVector=False), str(tmp_path / "b.nrrd"))
    refused(read_volume, tmp_path / "b.nrrd", "4 axes", "each volume as a file")
    sitk.WriteImage(sitk.GetImageFromArray(VALUES.astype(np.complex64)), str(tmp_path / "c.nrrd"))
    refused(read_volume, tmp_path / "c.nrrd", "complex")
    path = saved(tmp_path / "d.mha")
    head, _, data = path.read_bytes().partition(b"TransformMatrix = ")
    path.write_bytes(head + b"TransformMatrix = 0 0 0 0 0 0 0 0 0\n" + data.partition(b"\n")[2])
    refused(read_volume, path, "a plane", "direction")


def test_nan_is_counted(tmp_path):
    values = VALUES.copy()
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    refused(read_volume, saved(tmp_path / "a.nrrd", values), "3 voxels", "NaN")


def test_packed_nrrd_is_gzip(tmp_path):
    """The two checks above see what they claim to: the voxels lie behind a blank line, as a gzip stream."""
    content = saved(tmp_path / "a.nrrd", packed=True).read_bytes()
    assert gzip.decompress(content.partition(b"\n\n")[2]) == VALUES.transpose(2, 1, 0).tobytes()
