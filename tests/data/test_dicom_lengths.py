"""Lengths that lie; truth is what GDCM reads of pydicom's own test files, in all transfer syntaxes, and pydicom's own count of bytes."""

import re
import struct
from pathlib import Path

import pydicom
import pytest
import SimpleITK as sitk

from dicoms import head, write_series
from somite.data import dicom
from somite.data.dicom_lengths import within
from somite.errors import InputError

SAMPLES = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").iterdir()
    if path.suffix == ".dcm" and path.stat().st_size < 10**6
)


def readable(path):
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.Execute()
    except RuntimeError:
        return False
    return True


def test_what_gdcm_reads_is_let_through():
    good = [path for path in SAMPLES if readable(path)]
    assert len(good) > 30
    assert {pydicom.dcmread(path, force=True).file_meta.get("TransferSyntaxUID") for path in good} >= {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    }
    assert not [path.name for path in good if not within(path)]


@pytest.fixture
def slice_(tmp_path):
    return sorted(write_series(tmp_path / "a", head((8, 8, 2))).iterdir())[0]


def test_a_file_that_ends_first_is_not(slice_):
    data = slice_.read_bytes()
    for kept in range(140, len(data) - 1, 37):
        slice_.write_bytes(data[:kept])
        ends = not pydicom.dcmread(slice_, force=True, stop_before_pixels=False).get("PixelData", b"")
        assert not within(slice_) or ends  # where no element was begun, nothing lies
    slice_.write_bytes(data[:-1])
    assert not within(slice_)


def memory():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what memory is taken")
def test_a_length_of_a_gigabyte_takes_none(slice_):
    data, tag = slice_.read_bytes(), b"\xe0\x7f\x10\x00OW\0\0"
    at = data.index(tag) + len(tag)
    slice_.write_bytes(data[:at] + struct.pack("<I", 2**30) + data[at + 4 :])
    before = memory()
    for _ in range(3):
        with pytest.raises(InputError, match="truncated or damaged"):
            dicom.read_series(slice_.parent)
    assert memory() < before + 200
