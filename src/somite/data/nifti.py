"""Volumes: NIfTI files with their geometry.

The header of the file that was read goes with its geometry and is never recomputed, so that what is written lies where the
input lay, bit for bit: affine, sform and qform with their codes and quaternions, pixdim, units. What came in another format gets a
header of its own.
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Int32
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ..errors import InputError
from ..files import replacing
from .geometry import Geometry, Header, Volume
from .images import check_file, damaged
from .voxels import as_channels, as_labels, memory, too_large, too_short

SUFFIXES = (".nii", ".nii.gz")
_DAMAGE = (OSError, EOFError, ValueError, OverflowError, zlib.error, struct.error, ImageFileError, HeaderDataError, WrapStructError)
_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: metre, millimetre, micrometre; no or another unit counts as mm
_SHEAR = 1e-4  # cosine between two axes that is more than rounding
_HEADER = 540  # bytes of the longer of the two headers
_DEFLATE = 1032  # a match of 258 bytes takes two bits at least
_ARRAYS = 16  # bytes a voxel of what is made of it: float64 where the header has a slope, and two arrays of float32
_IDENTIFYING = {"descrip", "aux_file", "db_name", "intent_name"}  # free text that may name a patient


def read_header(path: Path) -> Header:
    """What the file says of itself; a few hundred bytes of it are read. Raises InputError for a header that makes no sense."""
    check_file(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if packed else file as plain:
                _, header, _ = _header(plain.read(_HEADER), path)
        _check_spacing(header["pixdim"][1:4], "pixdim", path)
        _check_affine(_affine(header), path)
        shape = header.get_data_shape()
        return Header(
            tuple(map(int, shape[:3])), math.prod(map(int, shape[3:])), str(header.get_data_dtype().newbyteorder("=")), _geometry(header)
        )
    except _DAMAGE as error:
        raise error if isinstance(error, InputError) else damaged(path, error) from error


def read_volume(path: str | Path) -> Volume:
    """A volume as float32 with channels first: the fourth axis of the file, or one channel."""
    path = Path(path)
    image = _open(path)
    return Volume(as_channels(_values(image, path, np.float32), path), _geometry(image.header))  # no more axes: checked by _header


def read_labels(path: str | Path) -> tuple[Int32[np.ndarray, "x y z"], Geometry]:
    """The integer labels of a mask volume, and where it lies."""
    path = Path(path)
    image = _open(path)
    return as_labels(_values(image, path), path), _geometry(image.header)


def write_volume(path: str | Path, array: np.ndarray, like: Geometry) -> None:
    """Write (x, y, z) or (c, x, y, z) where `like` lies: floats as float32, integers as the smallest unsigned type."""
    if array.shape[-3:] != like.shape or array.ndim not in (3, 4):
        raise ValueError(f"got shape {array.shape} for a geometry of {like.shape}; the last three must agree")
    stored = array if array.ndim == 3 else np.moveaxis(array, 0, -1)
    stored = stored.astype(np.float32 if np.issubdtype(array.dtype, np.floating) else _unsigned(array))
    source = like.source if isinstance(like.source, nib.Nifti1Header) else _made(like)
    header = source.copy()
    header.extensions.clear()
    for name in _IDENTIFYING & set(header.keys()):  # NIfTI-2 has no db_name
        header[name] = b""
    header["cal_min"] = header["cal_max"] = header["intent_code"] = 0  # they describe the image's values, not these
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header["pixdim"] = source["pixdim"]  # set_data_shape resets those after the last axis
    image = (nib.Nifti2Image if int(header["sizeof_hdr"]) == 540 else nib.Nifti1Image)(stored, None, header)
    image.header.set_slope_inter(1, 0)
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _geometry(header: nib.Nifti1Header) -> Geometry:
    affine = _affine(header)
    affine[:3] *= _MM.get(int(header["xyzt_units"]) % 8, 1.0)
    return Geometry(affine, tuple(int(n) for n in header.get_data_shape()[:3]), header)


def _made(where: Geometry) -> nib.Nifti1Header:
    """A header for what came in another format."""
    header = nib.Nifti1Header()
    header.set_data_shape(where.shape)
    header.set_xyzt_units("mm")
    header.set_sform(where.affine, 1)
    header.set_qform(where.affine, 1)  # pixdim with it; of a sheared grid the nearest without shear, which does not count then
    sides = where.affine[:3, :3] / where.spacing_mm
    if np.abs(sides.T @ sides - np.eye(3)).max() > _SHEAR:
        header["qform_code"] = 0
    return header


def _affine(header: nib.Nifti1Header) -> Float64[np.ndarray, "4 4"]:
    best: Any = header.get_best_affine()  # sform before qform before pixdim; nibabel's own annotation is too wide
    return np.asarray(best, dtype=np.float64)


def _unsigned(array: np.ndarray) -> np.dtype:
    if array.size and array.min() < 0:
        raise ValueError(f"labels start at 0, got {array.min()}")
    return np.min_scalar_type(array.max()) if array.dtype != bool and array.size else np.dtype(np.uint8)


def _open(path: Path) -> nib.Nifti1Image:
    """A NIfTI file whose header makes sense; read whole, since only the end of a gzip file tells damage.

    Nothing is allocated that the file cannot hold: a header may promise what lies in the file, or where that is compressed
    `_DEFLATE` times its size, which is the most that gzip can pack. This machine's memory must hold that much and `_ARRAYS` bytes
    a voxel, or InputError says so beforehand: systems that lend more memory than they have kill the process in place of an error.
    """
    check_file(path)
    try:
        raw = path.read_bytes()
        packed = raw[:2] == b"\x1f\x8b"
        kind, header, promised = _header(_unpacked(raw, _HEADER) if packed else raw, path)
        if promised > len(raw) * (_DEFLATE if packed else 1):
            raise too_short(path, promised, len(raw))
        if promised + _ARRAYS * math.prod(map(int, header.get_data_shape())) > memory():
            raise too_large(path)
        _check_spacing(header["pixdim"][1:4], "pixdim", path)
        image = kind.from_bytes(_unpacked(raw, promised, to_the_end=True) if packed else raw)
        _check_affine(_affine(image.header), path)
    except InputError:
        raise
    except MemoryError as error:
        raise too_large(path) from error
    except _DAMAGE as error:
        raise damaged(path, error) from error
    return image


def _unpacked(raw: bytes, limit: int, to_the_end: bool = False) -> bytes:
    """At most `limit` bytes of what is packed; `to_the_end` what follows is read and forgotten, for the checksum behind it."""
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        found = file.read(limit)
        while to_the_end and file.read(2**20):
            pass
    return found


def _header(raw: bytes, path: Path) -> tuple[type[nib.Nifti1Image], nib.Nifti1Header, int]:
    """The kind of file, its header as it stands (nibabel would mend it in silence), and the bytes that it promises."""
    if raw[344:348] == b"n+1\x00":
        kind, header = nib.Nifti1Image, nib.Nifti1Header(raw[:348], check=False)
    elif raw[4:8] == b"n+2\x00":
        kind, header = nib.Nifti2Image, nib.Nifti2Header(raw[:540], check=False)
    else:
        raise InputError(f"{path} is not a NIfTI file (.nii, .nii.gz): convert it, DICOM with dcm2niix")
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape) < 1:
        raise InputError(f"{path} has shape {shape}: a volume has three axes, or four of which the last are channels")
    if sum(n > 1 for n in shape[3:]) > 1:
        raise InputError(
            f"{path} has shape {shape}, {math.prod(shape[3:])} volumes on more than one axis, where a volume has three axes, or four "
            "of which the last are channels: save each volume as a file"
        )
    try:
        size = header.get_data_dtype().itemsize
    except KeyError as error:
        raise HeaderDataError(f"its numbers are of the unknown type {error}") from error
    return kind, header, max(int(header["vox_offset"]), len(header.binaryblock)) + math.prod(shape) * size


def _check_spacing(spacing: np.ndarray, of: str, path: Path) -> None:
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(
            f"{path} has a spacing of {' x '.join(f'{side:g}' for side in spacing)} by {of}, and a voxel's sides are above 0: "
            "write the true ones into its header (in nibabel image.header.set_zooms and set_sform), or convert it again from DICOM"
        )


def _check_affine(affine: np.ndarray, path: Path) -> None:
    with np.errstate(all="ignore"):  # of damaged headers, which are refused here
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        _check_spacing(sides, "the columns of its affine", path)
        volume = abs(np.linalg.det(affine[:3, :3] / sides))  # of a voxel with sides of 1, whatever the unit
    if not np.isfinite(affine).all() or not volume > 1e-6:
        raise InputError(f"{path} has an affine that maps space to a plane or to NaN: mend its header (spacing, sform)")


def _values(image: nib.Nifti1Image, path: Path, dtype: type | None = None) -> np.ndarray:
    if np.dtype(image.get_data_dtype()).kind not in "iufb":
        raise InputError(f"{path} holds {image.get_data_dtype()} (colour or complex numbers): save it as numbers")
    try:
        values = np.asanyarray(image.dataobj)  # of another type than the file's where that has a slope
        return values if dtype is None else values.astype(dtype)
    except MemoryError as error:
        raise too_large(path) from error
    except _DAMAGE as error:
        raise damaged(path, error) from error
