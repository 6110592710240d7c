"""A DICOM series: a folder of slices of CT or MR, read by SimpleITK (GDCM), which unpacks JPEG, JPEG-LS, JPEG 2000 and RLE.

Slices are put in order by where they lie, never by their numbers or names, and rescaled as each file says (Hounsfield units of CT). What
makes no even stack of voxels is refused, with what to do: several series, slices that are missing or there twice, uneven distances,
a tilted gantry; and a localiser, which is no scan. Slices that are missing at an end leave no trace in the positions of the others.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from ..errors import InputError
from . import images, itk, nifti
from .dicom_class import kind_of
from .dicom_lengths import within
from .geometry import LPS, Geometry, Header, Series, Volume
from .itk import quiet
from .voxels import as_channels, memory, too_large

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

SUFFIXES = (".dcm", ".dicom", ".ima")  # or none, or a part of an id: then the file's first bytes tell
IMAGES = (*images.SUFFIXES, *nifti.SUFFIXES, *itk.SUFFIXES)  # of other formats
_OTHERS = (*IMAGES, ".json", ".csv", ".txt", ".xml", ".npz", ".gz", ".zip", ".raw", ".yaml", ".md")
_OFF = 0.1  # of the distance of two slices: how far one may lie from its place in an even stack; headers round
_TILT_DEGREES = 0.2
_SAME = 1e-3  # of direction cosines, and mm of pixel spacing
_SCANNERS = ("CT", "MR", "PT")  # whose slices lie in space
_ARRAYS = 12  # bytes a voxel of what is made of it


@dataclass(frozen=True)
class _Slice:
    """What a file's header says: the series, the place of the first pixel, the directions of rows and columns, in mm (LPS)."""

    path: Path
    series: str
    title: str
    first: Float64[np.ndarray, "3"]
    axes: Float64[np.ndarray, "2 3"]
    spacing: tuple[float, float]  # between rows, between columns
    size: tuple[int, int]  # columns, rows
    thickness: float
    modality: str
    stored: str  # the type of its numbers
    localiser: bool  # a scout, on which slices were planned

    @property
    def normal(self) -> Float64[np.ndarray, "3"]:
        return np.cross(*self.axes)

    @property
    def height(self) -> float:
        """mm along the normal."""
        return float(self.first @ self.normal)


def is_series(folder: Path) -> bool:
    """Whether files of DICOM lie directly in a folder; none is opened whose name tells."""
    return folder.is_dir() and next(_found(folder), None) is not None


def files(folder: Path) -> tuple[Path, ...]:
    """The DICOM files that lie directly in a folder, by name."""
    return tuple(sorted(_found(folder)))


def read_header(folder: Path) -> Header:
    """What the slices say of the volume; no pixel is read. Raises InputError for what makes no even stack."""
    slices, where = _stack(folder)
    return Header(where.shape, 1, slices[0].stored, where)


def read_series(folder: Path) -> Volume:
    """The volume of a series: the first axis along rows, the second along columns, the third across slices."""
    slices, where = _stack(folder)
    if math.prod(where.shape) * _ARRAYS > memory():
        raise too_large(folder)
    array = np.empty(where.shape, np.float32)
    for index, each in enumerate(slices):
        array[..., index] = _pixels(each)
    return Volume(as_channels(array, folder), where)


def _stack(folder: Path) -> tuple[list[_Slice], Geometry]:
    """The slices in the order of their places, and where the volume lies."""
    slices = _headers(folder)
    if all(one.localiser for one in slices):
        raise InputError(
            f"{folder} is a localiser (a scout, on which slices were planned), and no scan: give the folder of a series of slices"
        )
    _check_alike(slices)
    slices = sorted(slices, key=lambda one: one.height)
    step = _step(slices, folder)
    one = slices[0]
    axes = np.column_stack([one.axes[0] * one.spacing[1], one.axes[1] * one.spacing[0], step])
    affine = LPS @ np.vstack([np.column_stack([axes, one.first]), [0, 0, 0, 1]])
    series = Series(tuple(each.path for each in slices), one.modality)
    return slices, Geometry(affine, (*one.size, len(slices)), series)


def _headers(folder: Path) -> list[_Slice]:
    """Of the one series in a folder. Several are told before anything else that is wrong, since a report among them is in order."""
    slices: list[_Slice] = []
    odd: list[InputError] = []
    for path in files(folder):
        try:
            slices.append(_header(path))
        except InputError as error:
            odd.append(error)
    names = {one.series: one.title for one in slices}
    if len(names) > 1:
        of = {key: [one.path.name for one in slices if one.series == key] for key in names}
        counted = ", ".join(f"{title!r} of {len(of[key])} files, {of[key][0]} the first" for key, title in names.items())
        more = f"; and {len(odd)} more files" if odd else ""
        raise InputError(
            f"{folder} holds {len(names)} DICOM series ({counted}{more}): move the files of each into a folder of its own, or "
            "make a NIfTI file of each with dcm2niix"
        )
    if odd:
        raise odd[0]
    return slices


def picture(path: Path) -> str:
    """What a DICOM image is that is plainly no slice of a scan (a localiser, a screenshot, a radiograph), else nothing; nothing too for
    damaged files, and for slices of CT or MR that lack what they should say.
    """
    try:
        reader = _told(path)
    except RuntimeError:
        return ""
    if _said(reader, "0028|0004") not in ("MONOCHROME2", "MONOCHROME1"):
        return f"a picture in colour ({_said(reader, '0028|0004')})"
    modality = _said(reader, "0008|0060")
    if modality not in _SCANNERS and not _said(reader, "0020|0032"):
        return f"a picture without a place in space ({modality})"
    return "a localiser" if _localiser(reader) else ""


def _said(reader: "sitk.ImageFileReader", tag: str, default: str = "") -> str:
    return reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else default


def _localiser(reader: "sitk.ImageFileReader") -> bool:
    """ImageType's third value (PS3.3, C.8.2.1.1.1 of CT); makers of MR write it further behind."""
    return "LOCALIZER" in _said(reader, "0008|0008").upper().replace(" ", "").split("\\")


def _found(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.upper() == "DICOMDIR":
            continue
        there = path.is_file() if entry.is_symlink() else entry.is_file()  # a link to itself is no file, which an entry does not know
        if there and is_dicom(path):
            yield path


def is_dicom(path: Path) -> bool:
    """Whether a file is one of DICOM, by its name or else by its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name.lower().endswith(_OTHERS):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _header(path: Path) -> _Slice:
    import SimpleITK as sitk  # noqa: N813

    try:
        reader = _told(path)
    except RuntimeError as error:
        raise _unreadable(path) from error

    said = partial(_said, reader)
    size = reader.GetSize()
    if len(size) > 2 and size[2] > 1:
        if kind_of(path):
            raise _unreadable(path)
        raise InputError(f"{path} holds {size[2]} slices in one file (enhanced DICOM): convert it to NIfTI with dcm2niix")
    if said("0028|0004") != "MONOCHROME2" or reader.GetPixelID() >= sitk.sitkVectorUInt8:
        raise InputError(f"{path} is of the kind {said('0028|0004')!r} where a slice of CT or MR is MONOCHROME2: take it out of the folder")
    first, axes, spacing = (_numbers(said(tag), count) for tag, count in (("0020|0032", 3), ("0020|0037", 6), ("0028|0030", 2)))
    if first is None or axes is None or spacing is None or min(spacing) <= 0:
        raise InputError(
            f"{path} does not say where it lies (ImagePositionPatient, ImageOrientationPatient, PixelSpacing), as slices of a volume do: "
            "take it out of the folder, or export the series again"
        )
    thickness = _numbers(said("0018|0088"), 1) or _numbers(said("0018|0050"), 1) or [0.0]
    title = said("0008|103e") or "without a name"
    sign = "" if said("0028|0103") == "1" else "u"
    place = np.array(first), np.array(axes).reshape(2, 3), (spacing[0], spacing[1])
    stored = f"{sign}int{said('0028|0100', '16')}"
    return _Slice(path, said("0020|000e"), title, *place, size[:2], abs(thickness[0]), said("0008|0060"), stored, _localiser(reader))


def _told(path: Path) -> "sitk.ImageFileReader":
    """A reader that has read all but the pixels. Raises RuntimeError for a file of which it can make nothing."""
    if not within(path):
        raise RuntimeError
    reader = _reader(path)
    with quiet():
        reader.ReadImageInformation()
    return reader


def _pixels(one: _Slice) -> np.ndarray:
    """(columns, rows), rescaled."""
    import SimpleITK as sitk  # noqa: N813

    try:
        with quiet():
            return sitk.GetArrayFromImage(_reader(one.path).Execute()).reshape(one.size[::-1]).T
    except (RuntimeError, ValueError) as error:
        raise _unreadable(one.path) from error


def _reader(path: Path) -> "sitk.ImageFileReader":
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _unreadable(path: Path) -> InputError:
    if other := kind_of(path):
        return InputError(f"{path} is {other}, where a slice of CT or MR was wanted: take it out of the folder")
    return InputError(
        f"{path} is truncated or damaged, or no image (a report, a structure set): copy it again from its origin, or take it out of the folder"
    )


def _numbers(text: str, count: int) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _check_alike(slices: Sequence[_Slice]) -> None:
    one = slices[0]
    kinds: dict[str, Callable[[_Slice], bool]] = {
        "size": lambda other: other.size == one.size,
        "pixel spacing": lambda other: bool(np.abs(np.subtract(other.spacing, one.spacing)).max() <= _SAME),
        "orientation": lambda other: bool(np.abs(other.axes - one.axes).max() <= _SAME),
    }
    for what, alike in kinds.items():
        odd = next((other for other in slices if not alike(other)), None)
        if odd is not None:
            raise InputError(
                f"{one.path} and {odd.path} differ in their {what}, so they are no slices of one volume: "
                "take those that do not belong to it (localisers) out of the folder"
            )


def _step(slices: Sequence[_Slice], folder: Path) -> Float64[np.ndarray, "3"]:
    """mm (LPS) from one slice to the next; refuses slices that are no even, upright stack. They come in the order of their heights."""
    one, last = slices[0], slices[-1]
    if len(slices) == 1:
        if one.thickness <= 0:
            raise InputError(f"{one.path} is a single slice that does not say how thick it is (SliceThickness): export the series again")
        return one.normal * one.thickness
    gaps = np.diff([each.height for each in slices])
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the median, or the lower of two
    for (before, after), gap in zip(pairwise(slices), gaps, strict=True):
        if gap < max(_OFF * usual, 1e-4):
            raise InputError(
                f"{before.path} and {after.path} lie in the same place: keep one of what was copied twice, or give each echo, phase or "
                "point in time a folder of its own"
            )
    step = (last.first - one.first) / (len(slices) - 1)
    tilt = np.degrees(np.arccos(min(1.0, step @ one.normal / np.linalg.norm(step))))
    if tilt > _TILT_DEGREES:
        raise InputError(
            f"the slices in {folder} are sheared by {tilt:.1f} degrees (a tilted gantry): convert the series with dcm2niix, which "
            "straightens it (its file with Tilt in the name)"
        )
    off = [float(np.linalg.norm(each.first - one.first - index * step)) for index, each in enumerate(slices)]
    if max(off) <= _OFF * np.linalg.norm(step):
        return step
    widest = int(np.argmax(gaps))
    more = round(float(gaps[widest]) / usual) - 1
    if more > 0 and np.abs(gaps / usual - np.rint(gaps / usual)).max() < _OFF:
        raise InputError(
            f"{folder} lacks {more} slice(s) between {slices[widest].path.name} and {slices[widest + 1].path.name}, which lie "
            f"{gaps[widest]:g} mm apart where others lie {usual:g} mm: copy the series again from its origin"
        )
    raise InputError(
        f"the slices in {folder} lie unevenly, {gaps.min():g} to {gaps.max():g} mm apart: convert the series with dcm2niix, which resamples it "
        "to even distances (its file with Eq in the name), or export one that was reconstructed evenly"
    )
