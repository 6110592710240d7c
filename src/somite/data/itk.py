"""Volumes in ITK's own formats, which 3D Slicer, ITK-SNAP and elastix write: NRRD and MetaImage, read by SimpleITK.

SimpleITK tells damage badly: of a packed MetaImage whose checksum is wrong it says so on stderr, and returns voxels that are wrong.
So what the header promises is compared with what is there, and packed voxels are unpacked once to see that they are whole.
"""

import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from ..errors import InputError
from .geometry import LPS, Geometry, Header, Volume
from .images import check_file, damaged
from .voxels import as_channels, as_labels, memory, too_large, too_short

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

SUFFIXES = (".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd")  # .seg.nrrd: Slicer's masks
_ARRAYS = 16  # bytes a voxel of what is made of it: SimpleITK's own, float32, and a copy
_AXES = re.compile(rb"\s*NDims\s*=\s*([1-9]|10)\s*")  # MetaIO's arrays are 10 long, and it writes beyond their end
_LINES = 2**16  # a header is not longer
_BLOCK = 2**20
_NAMES = {
    f"{bits}-bit {kind} integer": f"{short}{bits}" for bits in (8, 16, 32, 64) for kind, short in (("signed", "int"), ("unsigned", "uint"))
}
_NAMES |= {"32-bit float": "float32", "64-bit float": "float64"}  # SimpleITK's words and numpy's


def read_header(path: Path) -> Header:
    """What the file says of itself; no voxel is read. Raises InputError for a header that makes no sense."""
    import SimpleITK as sitk  # noqa: N813

    check_file(path)
    _voxels(path, _is_meta(path))
    reader = _reader(path)
    try:
        with quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(path, last_line(error)) from error
    _checked(reader, path)
    where = place(reader)
    stored = _NAMES.get(sitk.GetPixelIDValueAsString(reader.GetPixelID()).removeprefix("vector of "), "float32")
    return Header(where.shape, reader.GetNumberOfComponents(), stored, where)


def read_volume(path: str | Path) -> Volume:
    """A volume as float32 with channels first: the components of its voxels, or one channel."""
    path = Path(path)
    values, geometry = _read(path)
    return Volume(as_channels(values, path), geometry)


def read_labels(path: str | Path) -> tuple[Int32[np.ndarray, "x y z"], Geometry]:
    """The integer labels of a mask volume, and where it lies."""
    path = Path(path)
    values, geometry = _read(path)
    return as_labels(values, path), geometry


def place(image: "sitk.Image | sitk.ImageFileReader") -> Geometry:
    """Where SimpleITK says that an image of three axes lies."""
    axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = LPS @ np.vstack([np.column_stack([axes, image.GetOrigin()]), [0, 0, 0, 1]])
    return Geometry(affine, tuple(image.GetSize()))


@contextmanager
def quiet() -> Iterator[None]:
    """Without ITK's warnings on stderr: of what is refused here, or is no damage."""
    import SimpleITK as sitk  # noqa: N813

    loud = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(loud)


def last_line(error: RuntimeError) -> RuntimeError:
    """What SimpleITK says at the end; before it stand places in its source."""
    return RuntimeError([line.strip() for line in str(error).splitlines() if line.strip()][-1])


@dataclass(frozen=True)
class _Voxels:
    """Where the header says that the voxels are, and how: packed, as they are, or in a way that is left to SimpleITK."""

    path: Path
    start: int
    packed: bool
    raw: bool


def _read(path: Path) -> tuple[np.ndarray, Geometry]:
    """(x, y, z) or (x, y, z, c) in the type of the file."""
    import SimpleITK as sitk  # noqa: N813 — takes two seconds

    check_file(path)
    voxels = _voxels(path, _is_meta(path))
    reader = _reader(path)
    try:
        with quiet():
            reader.ReadImageInformation()
            promised = _checked(reader, path)
            if voxels is not None and voxels.packed:
                _check_packed(voxels, promised)
            elif voxels is not None and voxels.raw and voxels.path.stat().st_size - voxels.start < promised:
                raise too_short(voxels.path, promised, voxels.path.stat().st_size)
            image = reader.Execute()
    except RuntimeError as error:
        raise damaged(path, last_line(error)) from error
    values = sitk.GetArrayViewFromImage(image)  # (z, y, x) or (z, y, x, c)
    return values.transpose(2, 1, 0, *range(3, values.ndim)).copy(), place(image)


def _is_meta(path: Path) -> bool:
    return path.suffix.lower() in (".mha", ".mhd")


def _reader(path: Path) -> "sitk.ImageFileReader":
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO" if _is_meta(path) else "NrrdImageIO")
    reader.SetFileName(str(path))
    return reader


def _voxels(path: Path, meta: bool) -> _Voxels | None:
    """None for a list of files, which is left to SimpleITK."""
    with path.open("rb") as file:
        head = file.read(_LINES)
    end = re.search(rb"(?m)^ElementDataFile *= *([^\r\n]+)\r?\n?", head) if meta else re.search(rb"\r?\n\r?\n|\Z", head)
    if end is None or not (b"NDims" in head if meta else head.startswith(b"NRRD")):
        raise damaged(path, ValueError(f"it does not begin with the header of {'a MetaImage' if meta else 'an NRRD file'}"))
    head = head[: end.start()]
    if meta and not all(_AXES.fullmatch(line) for line in re.split(rb"[\r\n]", head) if b"NDims" in line):
        raise damaged(path, ValueError("its header has an impossible number of axes"))
    named = end if meta else re.search(rb"(?im)^data ?file: *([^\r\n]+)", head)
    name = named[1].strip().decode(errors="replace") if named else "LOCAL"
    if name.upper().startswith("LIST") or "%" in name:
        return None
    data = path if name.upper() == "LOCAL" else path.parent / name
    if not data.is_file():
        raise InputError(f"{path} keeps its voxels in {data}, which does not exist: put it there, or save both as one .mha or .nrrd")
    packed = re.search(rb"(?im)^(CompressedData *= *True|encoding: *gz)", head) is not None
    raw = re.search(rb"(?im)^(BinaryData *= *True|encoding: *raw)", head) is not None
    return _Voxels(data, end.end() if data == path else 0, packed, raw)


def _checked(reader: "sitk.ImageFileReader", path: Path) -> int:
    """The bytes of voxels that the header promises."""
    import SimpleITK as sitk  # noqa: N813

    if reader.GetDimension() != 3:
        raise InputError(f"{path} has {reader.GetDimension()} axes where a volume has three: save each volume as a file")
    if min(reader.GetSize()) < 1:
        raise InputError(f"{path} has shape {reader.GetSize()}, which is no voxel at all: copy it again from its origin")
    affine = place(reader).affine
    if not np.isfinite(affine).all() or not abs(np.linalg.det(np.array(reader.GetDirection()).reshape(3, 3))) > 1e-6:
        raise InputError(f"{path} has an affine that maps space to a plane or to NaN: mend its header (spacing, direction, origin)")
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "complex" in kind:
        raise InputError(f"{path} holds complex numbers: save it as numbers")
    numbers = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    if numbers * _ARRAYS > memory():
        raise too_large(path)
    bits = re.search(r"(\d+)-bit", kind)
    return numbers * (int(bits[1]) // 8 if bits else 4)  # the others are float


def _check_packed(voxels: _Voxels, promised: int) -> None:
    """Unpack to the end, in blocks, for the checksum that stands there."""
    unpacker, found = zlib.decompressobj(47), 0  # zlib's form or gzip's
    with voxels.path.open("rb") as file:
        file.seek(voxels.start)
        try:
            while not unpacker.eof and (block := unpacker.unconsumed_tail or file.read(_BLOCK)):
                found += len(unpacker.decompress(block, 16 * _BLOCK))
            found += len(unpacker.flush())
        except zlib.error as error:
            raise damaged(voxels.path, error) from error
    if not unpacker.eof or found < promised:
        raise damaged(voxels.path, EOFError(f"{found} of {promised} bytes of voxels are there"))
