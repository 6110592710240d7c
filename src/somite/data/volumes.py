"""Volumes of every format: files, known by the ending of their names, and folders of DICOM."""

from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Int32

from . import dicom, dicom_export, itk, nifti
from .geometry import Geometry, Header, Volume

SUFFIXES = (*nifti.SUFFIXES, *itk.SUFFIXES)


def is_volume(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) or dicom.is_series(path)


def read_header(path: Path) -> Header:
    """What a volume's files say of it; no voxel is read."""
    return dicom.read_header(path) if path.is_dir() else _format(path).read_header(path)


def read_volume(path: Path) -> Volume:
    """A volume as float32 with channels first, in the units of the file."""
    return dicom.read_series(path) if path.is_dir() else _format(path).read_volume(path)


def read_labels(path: Path) -> tuple[Int32[np.ndarray, "x y z"], Geometry]:
    """The integer labels of a mask volume, and where it lies."""
    _check_mask(path)
    return _format(path).read_labels(path)


def read_mask_header(path: Path) -> Header:
    """What a mask's file says of it; no voxel is read."""
    _check_mask(path)
    return read_header(path)


def _check_mask(path: Path) -> None:
    if path.is_dir():
        raise dicom_export.masks_refused(path)


def _format(path: Path) -> ModuleType:
    return nifti if path.name.lower().endswith(nifti.SUFFIXES) else itk
