"""nibabel and SimpleITK write and judge; geometry must come back bit for bit."""

import gzip
import struct
import tracemalloc
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from somite.data.geometry import Geometry
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
    refused(read_volume, saved(tmp_path / "d.nii", np.stack([vector[..., 0, :], channels], axis=-1)), "three axes", "4 volumes")
    refused(read_volume, saved(tmp_path / "e.nii", VALUES[0]), "three axes")
    refused(read_labels, saved(tmp_path / "f.nii", (channels > 0).astype(np.uint8)), "one channel")


@pytest.mark.parametrize(("units", "scale"), [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_spacing_is_in_mm(tmp_path, units, scale):
    spacing = read_volume(saved(tmp_path / "a.nii", units=units)).geometry.spacing_mm
    assert np.allclose(spacing, np.array([0.7, 1.3, 2.9]) * scale)


def test_what_came_in_another_format_lies_where_its_affine_says(tmp_path):
    """nibabel and SimpleITK read the place of a header that somite made; of a sheared grid the sform alone counts."""
    sheared = oblique() @ np.array([[1, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for affine, code in ((oblique(), 1), (np.diag([-1.0, 1, 2, 1]), 1), (sheared, 0)):
        write_volume(tmp_path / "a.nii.gz", VALUES, Geometry(affine, VALUES.shape))
        image = nib.load(tmp_path / "a.nii.gz")
        assert np.array_equal(image.get_fdata(dtype=np.float32), VALUES)
        assert np.abs(image.affine - affine).max() < 1e-5
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (code, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
        if code:
            assert np.abs(image.get_qform() - affine).max() < 1e-5
            other = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
            corner = other.TransformIndexToPhysicalPoint((4, 5, 6))
            assert np.allclose(np.array([-1, -1, 1]) * corner, (affine @ [4, 5, 6, 1])[:3], atol=1e-4)


def test_units_that_nifti_does_not_know_are_mm(tmp_path):
    path = changed(saved(tmp_path / "a.nii"), (123, "B", 0x3F))
    assert np.allclose(read_volume(path).geometry.spacing_mm, [0.7, 1.3, 2.9])


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


def changed(path, *changes):
    """A file's header with numbers of another value: (offset, format of struct, value) each."""
    raw = path.read_bytes()
    packed = raw[:2] == b"\x1f\x8b"
    content = bytearray(gzip.decompress(raw) if packed else raw)
    for offset, form, value in changes:
        struct.pack_into(form, content, offset, *np.atleast_1d(value))
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_what_a_file_cannot_hold_is_refused_before_memory_is_taken(tmp_path, suffix, kind, read):
    path = saved(tmp_path / f"a.{suffix}", kind=kind)
    size = (42, "<3h", (32000, 32000, 32000)) if kind is nib.Nifti1Image else (24, "<3q", (2**40, 2**11, 2**11))
    changed(path, size)
    tracemalloc.start()
    try:
        refused(read, path, "header promises", "can hold", "copy it again")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_one_voxel_too_few_is_refused(tmp_path):
    content = saved(tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(content + b"more")
    assert np.array_equal(read_volume(tmp_path / "a.nii").array[0], VALUES)
    (tmp_path / "a.nii").write_bytes(content[:-1])
    refused(read_volume, tmp_path / "a.nii", f"promises {len(content)} bytes", f"its {len(content) - 1} can")


def test_zeros_that_gzip_packs_as_tightly_as_it_can_are_read(tmp_path):
    path = saved(tmp_path / "a.nii.gz", np.zeros((200, 200, 200), np.uint8))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9))
    assert path.stat().st_size < 200**3 / 1000
    assert not read_labels(path)[0].any()


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_what_this_machines_memory_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch, suffix):
    path = saved(tmp_path / f"a.{suffix}")
    need = 352 + VALUES.size * (4 + 16)
    monkeypatch.setattr("somite.data.nifti.memory", lambda: need - 1)
    refused(read_volume, path, "more memory", "crop")
    refused(read_labels, path, "more memory")
    monkeypatch.setattr("somite.data.nifti.memory", lambda: need)
    assert np.array_equal(read_volume(path).array[0], VALUES)


def test_what_follows_the_voxels_of_a_packed_file_is_not_kept(tmp_path):
    path = saved(tmp_path / "a.nii.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2 * 10**8), 1))
    tracemalloc.start()
    try:
        assert np.array_equal(read_volume(path).array[0], VALUES)
        assert tracemalloc.get_traced_memory()[1] < 5e7
    finally:
        tracemalloc.stop()
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1  # the checksum counts it all the same
    path.write_bytes(raw)
    refused(read_volume, path, "damaged")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_too_little_memory_is_said(tmp_path, monkeypatch, suffix):
    path = saved(tmp_path / f"a.{suffix}")

    def full(*_):
        raise MemoryError

    for name in ("nibabel.Nifti1Image.from_bytes", "nibabel.arrayproxy.ArrayProxy.__array__"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            refused(read_volume, path, "more memory", "crop or resample")


@pytest.mark.parametrize("value", [0.0, -1.3, np.nan, np.inf])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 4)])
def test_a_spacing_that_is_none_is_refused(tmp_path, value, codes):
    path = changed(saved(tmp_path / "a.nii", codes=codes), (84, "<f", value))  # pixdim[2]
    refused(read_volume, path, f"x {value:g} x", "pixdim", "set_zooms")
    refused(read_labels, path, f"x {value:g} x", "pixdim", "set_zooms")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_column_of_the_affine_without_length_is_refused(tmp_path, value):
    path = changed(saved(tmp_path / "a.nii"), *[(280 + 16 * row, "<f", value) for row in range(3)])
    refused(read_volume, path, f"{value:g} x", "columns of its affine", "set_sform")


def test_an_affine_may_turn_flip_and_be_in_metres(tmp_path):
    affine = np.array([[0, -1e-4, 0, 1], [-1e-4, 0, 0, 2], [0, 0, 1e-4, 3], [0, 0, 0, 1]])
    path = saved(tmp_path / "a.nii", affine=affine, codes=(0, 2), units="meter")
    assert read_volume(path).geometry.spacing_mm == pytest.approx((0.1, 0.1, 0.1))


def test_trailing_axes_of_one_are_dropped(tmp_path):
    channels = np.stack([VALUES, VALUES + 1], axis=-1)
    for name, array in (("a", VALUES[..., None, None]), ("b", VALUES[..., None, None, None, None])):
        path = saved(tmp_path / f"{name}.nii.gz", array)
        assert np.array_equal(read_volume(path).array, VALUES[None])
        assert read_labels(saved(tmp_path / f"{name}.nii", (array > 0).astype(np.uint8)))[0].shape == VALUES.shape
    assert np.array_equal(read_volume(saved(tmp_path / "c.nii", channels[..., None])).array, [VALUES, VALUES + 1])
    refused(read_volume, saved(tmp_path / "d.nii", np.zeros((2, 3, 4, 5, 6))), "(2, 3, 4, 5, 6)", "30 volumes")
    refused(read_volume, changed(tmp_path / "d.nii", (42, "<h", -2)), "(-2, 3, 4, 5, 6)")


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
