"""nibabel and SimpleITK write and judge; geometry must come back bit for bit."""

import gzip
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from somite.data.nifti import read_labels, read_volume, write_volume
from somite.errors import InputError

GEOMETRY = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
            "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")  # fmt: skip
VALUES = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


def oblique() -> np.ndarray:
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 1.3, 2.9])
    affine[:3, 3] = -31.25, 17.1, 3.3
    return affine


def saved(path, array=VALUES, affine=None, kind=nib.Nifti1Image, codes=(1, 4), units="mm"):
    image = kind(array, oblique() if affine is None else affine)
    image.header.set_qform(oblique(), codes[0])
    image.header.set_sform(oblique() if affine is None else affine, codes[1])
    image.header.set_xyzt_units(units, "sec")
    nib.save(image, path)
    return path


def refused(read, path, *words):
    with pytest.raises(InputError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 4), (3, 3)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_geometry_is_bit_equal(tmp_path, suffix, codes, kind):
    path = saved(tmp_path / f"a.{suffix}", codes=codes, kind=kind)
    original = nib.load(path)
    volume = read_volume(path)
    assert np.array_equal(volume.array[0], VALUES)
    for array in (volume.array[0] > 0, VALUES, np.full(VALUES.shape, 3), np.stack([VALUES, VALUES])):
        write_volume(tmp_path / f"b.{suffix}", array, volume.geometry)
        written = nib.load(tmp_path / f"b.{suffix}")
        assert type(written) is type(original)
        for name in GEOMETRY:
            assert written.header[name].tobytes() == original.header[name].tobytes(), name
        assert written.affine.tobytes() == original.affine.tobytes()


def test_geometry_is_the_same_to_simpleitk(tmp_path):
    path = saved(tmp_path / "a.nii.gz", codes=(1, 1))
    write_volume(tmp_path / "b.nii.gz", VALUES > 0, read_volume(path).geometry)
    a, b = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    assert (a.GetOrigin(), a.GetSpacing(), a.GetDirection()) == (b.GetOrigin(), b.GetSpacing(), b.GetDirection())
    assert np.array_equal(sitk.GetArrayFromImage(b).transpose(), VALUES > 0)


def test_big_endian_is_read_and_written(tmp_path):
    image = nib.Nifti1Image(VALUES, oblique(), nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.array[0], VALUES)
    write_volume(tmp_path / "b.nii", VALUES, volume.geometry)
    assert np.array_equal(nib.load(tmp_path / "b.nii").get_fdata(dtype=np.float32), VALUES)
    assert np.array_equal(nib.load(tmp_path / "b.nii").affine, nib.load(tmp_path / "a.nii").affine)


def test_types_and_slope_on_disk(tmp_path):
    image = nib.Nifti1Image(VALUES, oblique())
    image.header.set_data_dtype(np.int16)  # nibabel then stores a slope
    image.header["descrip"] = b"Name^Of^Patient"
    image.header["cal_max"] = 400
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1950"))
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert np.abs(volume.array[0] - VALUES).max() < 1e-3
    for array, dtype in ((VALUES > 0, "u1"), (np.full(VALUES.shape, 200), "u1"), (np.full(VALUES.shape, 300), "u2"),
                         (VALUES.astype(np.float64), "f4")):  # fmt: skip
        write_volume(tmp_path / "b.nii", array, volume.geometry)
        raw = (tmp_path / "b.nii").read_bytes()
        assert np.frombuffer(raw[112:120], "<f4").tolist() == [1, 0]
        written = nib.load(tmp_path / "b.nii")
        assert written.get_data_dtype() == np.dtype(dtype)
        assert np.array_equal(written.get_fdata(dtype=np.float32), array.astype(np.float32))
        assert b"Patient" not in raw
        assert b"1950" not in raw
        assert written.header["cal_max"] == 0


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    geometry = read_volume(saved(tmp_path / "a.nii.gz")).geometry
    for name in "bc":
        write_volume(tmp_path / f"{name}.nii.gz", VALUES, geometry)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_axes(tmp_path):
    assert read_volume(saved(tmp_path / "a.nii", VALUES[..., None])).array.shape == (1, 5, 6, 7)
    channels = np.stack([VALUES, VALUES + 1], axis=-1)
    assert np.array_equal(read_volume(saved(tmp_path / "b.nii", channels)).array, [VALUES, VALUES + 1])
    vector = channels[:, :, :, None]
    assert np.array_equal(read_volume(saved(tmp_path / "c.nii", vector)).array, [VALUES, VALUES + 1])
    refused(read_volume, saved(tmp_path / "d.nii", np.stack([vector[..., 0, :], channels], axis=-1)), "three axes")
    refused(read_volume, saved(tmp_path / "e.nii", VALUES[0]), "three axes")
    refused(read_labels, saved(tmp_path / "f.nii", (channels > 0).astype(np.uint8)), "one channel")


@pytest.mark.parametrize(("units", "scale"), [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_spacing_is_in_mm(tmp_path, units, scale):
    spacing = read_volume(saved(tmp_path / "a.nii", units=units)).geometry.spacing_mm
    assert np.allclose(spacing, np.array([0.7, 1.3, 2.9]) * scale)


def test_nan_is_counted(tmp_path):
    values = VALUES.copy()
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    refused(read_volume, saved(tmp_path / "a.nii.gz", values), "3 voxels", "NaN", "replace")


def test_damage(tmp_path):
    for suffix in ("nii", "nii.gz"):
        path = saved(tmp_path / f"a.{suffix}")
        content = path.read_bytes()
        for keep in (1, 5, 100, 347, 400, len(content) // 2, len(content) - 6):
            path.write_bytes(content[:keep])
            refused(read_volume, path)
    path = saved(tmp_path / "b.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # only the checksum at the end of the stream tells
    path.write_bytes(content)
    refused(read_volume, path, "damaged")
    (tmp_path / "empty.nii").touch()
    refused(read_volume, tmp_path / "empty.nii", "0 bytes")
    refused(read_volume, tmp_path / "none.nii", "does not exist")
    (tmp_path / "text.nii").write_text("no volume " * 100)
    refused(read_volume, tmp_path / "text.nii", "not a NIfTI")


def test_flipped_header_bits_never_crash(tmp_path):
    path = saved(tmp_path / "a.nii", VALUES[:2, :2, :2])
    content = path.read_bytes()
    for place in range(348):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with suppress(InputError):
            read_volume(path)


def test_a_compressed_file_without_gz_is_read(tmp_path):
    path = saved(tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(read_volume(tmp_path / "b.nii").array[0], VALUES)


def test_singular_affine_and_colour(tmp_path):
    content = bytearray(saved(tmp_path / "a.nii").read_bytes())
    content[312:328] = bytes(16)  # srow_z
    (tmp_path / "a.nii").write_bytes(content)
    refused(read_volume, tmp_path / "a.nii", "affine")
    refused(read_volume, saved(tmp_path / "b.nii", VALUES.astype(np.complex64)), "complex")


def test_labels(tmp_path):
    labels = np.arange(210).reshape(5, 6, 7)
    for dtype in (np.uint8, np.int16, np.float32):
        found, geometry = read_labels(saved(tmp_path / "a.nii", labels.astype(dtype)))
        assert np.array_equal(found, labels)
        assert geometry.shape == (5, 6, 7)
    refused(read_labels, saved(tmp_path / "b.nii", labels.astype(np.float32) / 2), "no labels")
    refused(read_labels, saved(tmp_path / "c.nii", labels.astype(np.int16) - 1), "no labels")
    refused(read_labels, saved(tmp_path / "d.nii", np.full((3, 3, 3), np.nan, np.float32)), "no labels")


def test_programming_errors_of_writing(tmp_path):
    geometry = read_volume(saved(tmp_path / "a.nii")).geometry
    with pytest.raises(ValueError, match="must agree"):
        write_volume(tmp_path / "b.nii", VALUES[1:], geometry)
    with pytest.raises(ValueError, match="start at 0"):
        write_volume(tmp_path / "b.nii", np.full(VALUES.shape, -1), geometry)
