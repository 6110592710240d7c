"""DICOM series of a few small slices, written by pydicom."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid  # noqa: E402

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # the directions along rows and along columns, in LPS


def head(size=(16, 14, 5), seed: int = 0) -> np.ndarray:
    """(x, y, z) Hounsfield units, whole: a bright ball in noise, off the middle so that no reflection looks the same."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    ball = np.linalg.norm((grid - np.array(size) * 0.4) / np.array(size), axis=-1) < 0.25
    return np.random.default_rng(seed).integers(-1000, -800, size) + 900 * ball


def write_series(
    folder: Path,
    array: np.ndarray,
    axes=AXIAL,
    spacing=(0.7, 1.3),
    step=(0.0, 0.0, 2.5),
    origin=(-31.25, 17.5, 3.0),
    modality: str = "CT",
    slope: float = 1,
    intercept: float = -1024,
    change: Callable[[Dataset, int], None] = lambda dataset, index: None,
    names: Callable[[int], str] = "{:04d}.dcm".format,
) -> Path:
    """One file for each slice of (x, y, z); values are stored as (value - intercept) / slope.

    spacing: mm between rows, and between columns. step: mm (LPS) from a slice to the next. change: what is spoilt in a slice.
    Names and instance numbers run against the order of the slices, as they may.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = (generate_uid(entropy_srcs=[str(folder), what]) for what in ("study", "series", "frame"))
    count = array.shape[2]
    for index in range(count):
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        made.SOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(index)])
        made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = study, series, frame
        made.Modality, made.SeriesDescription, made.PatientID, made.PatientName = modality, f"{modality} head", "P1", "Phantom^A"
        made.PatientBirthDate = made.PatientSex = made.StudyID = made.AccessionNumber = made.ReferringPhysicianName = ""
        made.StudyDate, made.StudyTime, made.Manufacturer = "20260101", "120000", "somite"
        made.SeriesNumber, made.InstanceNumber = 3, count - index
        made.ImageOrientationPatient = [f"{number:.6f}" for axis in axes for number in axis]
        made.ImagePositionPatient = [f"{number:.6f}" for number in np.array(origin) + index * np.array(step)]
        made.PixelSpacing, made.SliceThickness = list(spacing), 2.5
        made.Rows, made.Columns = array.shape[1], array.shape[0]
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
        made.RescaleSlope, made.RescaleIntercept = slope, intercept
        made.PixelData = np.rint((array[..., index].T - intercept) / slope).astype("<u2").tobytes()
        change(made, index)
        made.save_as(folder / names(count - index), enforce_file_format=True)
    return folder
