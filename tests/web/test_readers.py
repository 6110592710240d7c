"""The page's readers of files, in node, against nibabel, pydicom and SimpleITK."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

import somite
from dicom_slice import dicom
from somite.export.noise import noise
from somite.export.program import looked

PAGE = Path(somite.__file__).parent / "web" / "page"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not on this machine, which runs the page's modules")


def node(*words):
    done = subprocess.run([NODE, Path(__file__).with_name("read.mjs"), PAGE, *map(str, words)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def read(path, axis=2):
    """(slices, c, h, w)"""
    found = node(path, axis)
    assert "error" not in found, found
    return np.array([np.reshape(one["pixels"], (one["channels"], one["height"], one["width"])) for one in found["slices"]], np.float32)


def test_noise_is_that_of_python():
    wanted = noise(5, 2, 3, (7, 11))
    np.testing.assert_allclose(np.reshape(node("noise", 5, 2, 3, 7, 11), wanted.shape), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("own", [(256, 205), (205, 256), (5, 640), (96, 96), (3, 256)])
@pytest.mark.parametrize("size", [None, 128, [48, 64]])
def test_sizes_are_those_of_python(own, size):
    assert node("looked", json.dumps(size), *own) == list(looked(size, own))


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("kind", ["<i2", ">f4", "<u1", "<f8"])
def test_nifti(kind, axis, tmp_path):
    data = (np.random.default_rng(0).random((4, 5, 3)) * 200).astype(kind)
    header = nib.Nifti1Header(endianness=kind[0])
    header.set_data_dtype(data.dtype)
    image = nib.Nifti1Image(data, np.eye(4), header)
    image.header.set_slope_inter(2.0, -7.0)
    plain = tmp_path / "a.nii"
    plain.write_bytes(image.to_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain.read_bytes()))
    wanted = np.moveaxis(nib.load(plain).get_fdata(), axis, 0)[:, None]
    for path in (plain, tmp_path / "a.nii.gz"):
        np.testing.assert_allclose(read(path, axis), wanted, rtol=1e-6)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("kind", ["<u2", "<i2"])
def test_dicom(syntax, kind, tmp_path):
    low = -2000 if kind == "<i2" else 0
    pixels = np.random.default_rng(0).integers(low, 2047, (6, 4)).astype(kind)
    dicom(tmp_path / "a.dcm", pixels, syntax)
    wanted = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.dcm")))[0]  # (rows, columns)
    np.testing.assert_allclose(read(tmp_path / "a.dcm")[0, 0], wanted.T, rtol=1e-6)


@pytest.mark.parametrize("colour", [False, True])
def test_png_of_16_bits(colour, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 3) if colour else (5, 7)).astype(np.uint16)
    pixels[2] = pixels[1] // 2 + 3
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=colour), str(tmp_path / "a.png"))
    wanted = np.moveaxis(np.atleast_3d(pixels), -1, 0) / np.float32(65535)
    np.testing.assert_allclose(read(tmp_path / "a.png")[0], wanted, rtol=1e-6)


def test_what_cannot_be_read_is_told(tmp_path):
    dicom(tmp_path / "packed.dcm", np.zeros((2, 2), "<u2"), ExplicitVRLittleEndian)
    raw = (
        (tmp_path / "packed.dcm")
        .read_bytes()
        .replace(ExplicitVRLittleEndian.encode(), JPEG2000Lossless.encode()[: len(ExplicitVRLittleEndian)])
    )
    (tmp_path / "packed.dcm").write_bytes(raw)
    dicom(tmp_path / "inverted.dcm", np.zeros((2, 2), "<u2"), ExplicitVRLittleEndian, PhotometricInterpretation="MONOCHROME1")
    dicom(tmp_path / "short.dcm", np.zeros((2, 2), "<u2"), ExplicitVRLittleEndian, Rows=200)
    whole = nib.Nifti1Image(np.zeros((9, 9, 9), np.int16), np.eye(4)).to_bytes()
    (tmp_path / "short.nii").write_bytes(whole[:500])
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(whole)[:60])
    (tmp_path / "complex.nii").write_bytes(nib.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)).to_bytes())
    (tmp_path / "nan.nii").write_bytes(nib.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)).to_bytes())
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"not an image at all")
    said = {
        "packed.dcm": "compressed or big endian",
        "inverted.dcm": "MONOCHROME1 where a slice of CT or MR is MONOCHROME2",
        "short.dcm": "truncated",
        "short.nii": "truncated",
        "short.nii.gz": "truncated or damaged",
        "complex.nii": "numbers of type 32",
        "nan.nii": "NaN or infinite",
        "empty.png": "empty",
        "text.png": "no image that this page reads",
    }
    for name, words in said.items():
        assert words in node(tmp_path / name)["error"], name
