"""One case: the files it consists of, the arrays in them, and how what is computed from them is written back.

What is wrong with a case is said here, at reading, with the names of the files: sizes and positions that disagree,
masks whose values have no plain meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer, UInt8

from ..errors import InputError
from . import dicom, images, nifti, volumes
from .fit import fitted
from .geometry import Geometry, Header
from .packed import Packed

SUFFIXES = (*volumes.SUFFIXES, *images.SUFFIXES)


@dataclass(frozen=True)
class Case:
    """The files of one case: an image, in one file or one per channel (of DICOM a folder), and its mask where there is one.

    labels: which classes it has, 0 or 1 for each in the data set's order. packed: where its image lies, if not in files of its own.
    """

    id: str
    images: tuple[Path, ...]
    mask: Path | None
    group: str  # the patient, where known; cases of one group never stand in two splits
    labels: tuple[float, ...] | None = None
    packed: Packed | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The image's files, of a DICOM series all slices."""
        return tuple(file for path in self.images for file in (dicom.files(path) if path.is_dir() else (path,)))


@dataclass(frozen=True)
class Record:
    """A case in memory."""

    case: Case
    group: str
    image: Float32[np.ndarray, "c *s"]
    labels: UInt8[np.ndarray, "*s"] | None  # 0 and 1, or indices into `values`
    values: tuple[int, ...] | None  # the classes' values in mask files; None for binary masks
    spacing: tuple[float, ...] | None  # mm; None for 2D images
    geometry: Geometry | None  # None for 2D images
    classes: tuple[str, ...] = ()  # the names of the case's labels

    @property
    def shape(self) -> tuple[int, ...]:
        """The native spatial shape."""
        return self.image.shape[1:]

    @property
    def truth(self) -> UInt8[np.ndarray, "*s"]:
        """`labels`, where they must be known. Raises InputError for a case without a mask."""
        if self.labels is None:
            raise InputError(
                f"{self.case.id} has no mask, and training and evaluation need one; add it, or leave the case out of the splits"
            )
        return self.labels


def stem(path: Path) -> str:
    """The name without its suffix; `.nii.gz` is one suffix."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def unknown(path: Path) -> InputError:
    """A file of no kind that somite reads."""
    if dicom.is_dicom(path):
        return InputError(f"{path} is a DICOM file, and a volume is a series of them: give the folder of its slices, {path.parent}")
    return InputError(f"{path} is of no kind that somite reads ({', '.join(SUFFIXES)}): convert it")


def suffix_of(path: Path) -> str:
    """The suffix as written, if somite reads such files, else nothing."""
    known = sorted((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len)
    return path.name[-len(known[-1]) :] if known else ""


def read(
    case: Case,
    labels: Sequence[int] | None = None,
    mask_threshold: int | None = None,
    foreground: Sequence[int] | None = None,
) -> Record:
    """Read a case and check that its files fit together.

    labels: the values of the classes in mask files, background first; None for binary masks of 0 and one other value.
    mask_threshold: mask values from here on are foreground; for binary masks stored as JPEG.
    foreground: these mask values are foreground and all others are not: a binary mask out of a map of many classes.
    """
    _check_labels(labels, mask_threshold, foreground)
    image, geometry = _read_channels(case)
    classes = None
    if case.mask is not None:
        raw, where = read_mask(case.mask)
        raw = fitted(case.mask, raw, where, case.images[0], image.shape[1:], geometry)
        classes = classes_of(raw, labels, mask_threshold, case.mask) if foreground is None else np.isin(raw, foreground).astype(np.uint8)
    values = None if labels is None else tuple(labels)
    spacing = None if geometry is None else geometry.spacing_mm
    return Record(case, case.group, image, classes, values, spacing, geometry)


def mask_values(case: Case) -> tuple[int, ...]:
    """The distinct values in a case's mask file, whatever they mean."""
    return () if case.mask is None else tuple(np.unique(read_mask(case.mask)[0]).tolist())


def write_mask(path: Path, mask: Integer[np.ndarray, "*s"], record: Record) -> Path:
    """Write labels in the values that the case's own mask uses, where the case lies; `path` comes without suffix.

    Binary masks are 0 and 255 in PNG, 0 and 1 in NIfTI.
    """
    _check_shape(mask, record)
    count = 2 if record.values is None else len(record.values)
    if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < count:
        raise ValueError(f"a mask of {count} labels holds 0 to {count - 1}, got {mask.min()} to {mask.max()}")
    binary = (0, 1 if record.geometry else 255)
    table = np.array(binary if record.values is None else record.values)
    return _write(path, table.astype(np.min_scalar_type(int(table.max())))[mask.astype(np.intp)], record)


def write_map(path: Path, values: Float[np.ndarray, "*s"], record: Record) -> Path:
    """Write a float map where the case lies, in NIfTI as float32 or in PNG with 65535 for 1; `path` has no suffix."""
    _check_shape(values, record)
    if record.geometry is not None:
        return _write(path, values.astype(np.float32), record)
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"a map in PNG holds values in [0, 1], got {values.min()} to {values.max()}")
    return _write(path, np.rint(values.astype(np.float64) * 65535).astype(np.uint16), record)


def _write(path: Path, array: np.ndarray, record: Record) -> Path:
    path = path.with_name(path.name + (".png" if record.geometry is None else ".nii.gz"))
    if record.geometry is None:
        images.write_png(path, array)
    else:
        nifti.write_volume(path, array, record.geometry)
    return path


def _check_shape(array: np.ndarray, record: Record) -> None:
    if array.shape != record.shape:
        raise ValueError(f"{record.case.id} has shape {record.shape}, got an array of {array.shape}; resample it first")


def _is_volume(path: Path) -> bool:
    if volumes.is_volume(path):
        return True
    images.check_file(path)
    if not suffix_of(path):
        raise unknown(path)
    return False


def _read_channels(case: Case) -> tuple[Float32[np.ndarray, "c *s"], Geometry | None]:
    """All channel files of a case, one after the other."""
    if case.packed is not None:
        return case.packed.read(), None
    first = case.images[0]
    arrays: list[np.ndarray] = []
    geometry: Geometry | None = None
    for path in case.images:
        array, where = read_image(path)
        if arrays:
            array = fitted(path, array, where, first, arrays[0].shape[1:], geometry)
        else:
            geometry = where
        arrays.append(array)
    return np.concatenate(arrays), geometry


def read_header(path: Path) -> Header:
    """What an image or volume says of itself, before its pixels are read."""
    return volumes.read_header(path) if _is_volume(path) else images.read_header(path)


def read_mask_header(path: Path) -> Header:
    """What a mask file says of itself, before its values are read."""
    return volumes.read_mask_header(path) if _is_volume(path) else images.read_header(path)


def read_image(path: Path) -> tuple[np.ndarray, Geometry | None]:
    """An image or volume as float32 with channels first, and where it lies."""
    if _is_volume(path):
        volume = volumes.read_volume(path)
        return volume.array, volume.geometry
    return images.read_image(path), None


def read_mask(path: Path) -> tuple[Int32[np.ndarray, "*s"], Geometry | None]:
    """The integers that a mask file holds, and where it lies."""
    return volumes.read_labels(path) if _is_volume(path) else (images.read_labels(path), None)


def _check_labels(labels: Sequence[int] | None, mask_threshold: int | None, foreground: Sequence[int] | None) -> None:
    ways = {"labels": labels, "mask_threshold": mask_threshold, "foreground": foreground}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} exclude each other (each says what mask values mean): give one")
    if foreground is not None and not foreground:
        raise InputError("--data.foreground names no value: give the mask values that are foreground, as [1,2]")
    if labels is None:
        return
    if not 2 <= len(labels) <= 256 or len(set(labels)) != len(labels) or min(labels) < 0:
        raise InputError(f"labels are 2 to 256 different values from 0, background first, got {list(labels)}: give `--data.labels [0,1,2]`")


def classes_of(raw: Int32[np.ndarray, "*s"], labels: Sequence[int] | None, threshold: int | None, path: Path) -> UInt8[np.ndarray, "*s"]:
    """The classes' indices from the values of a mask file. Raises InputError for values without a meaning."""
    if threshold is not None:
        return (raw >= threshold).astype(np.uint8)
    found = np.unique(raw).tolist()
    if labels is None:
        if len(set(found) | {0}) > 2 or (0 not in found and found not in ([1], [255])):
            raise InputError(
                f"{path} has the values {_listed(found)} where a binary mask has 0 and one other: give "
                f"`--data.labels [{','.join(map(str, sorted({0, *found})[:8]))}]` if these are classes, clean the file, "
                "or set `--data.mask_threshold 128` if the mask went through JPEG and values from 128 on are foreground"
            )
        return (raw > 0).astype(np.uint8)
    unknown = sorted(set(found) - set(labels))
    if unknown:
        raise InputError(
            f"{path} has the values {_listed(unknown)} which are not among the labels {list(labels)}: "
            "add them to `--data.labels` or clean the file"
        )
    table = np.zeros(max(labels) + 1, dtype=np.uint8)
    table[list(labels)] = np.arange(len(labels))
    return table[raw]


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return shown if len(values) <= 8 else f"{shown} ... ({len(values)} values)"
