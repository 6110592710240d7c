"""How bright a volume's values are drawn: the windows of radiology for CT in Hounsfield units, percentiles for everything else."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...data.geometry import Geometry, Series, moved
from ...data.record import Record
from .planes import like, most, viewed

WINDOWS = {"brain": (40, 80), "soft tissue": (40, 400), "lung": (-600, 1500), "bone": (400, 1800)}  # level and width in HU, by width
AIR = -900  # HU: values as low as this are met in CT alone
MOST = 0.9  # a window fits what it shows so much of
BODY, FAT = -300, -20  # HU: above is body, below are fat and air
WIDE_MM, AROUND_MM, LITTLE = 200, 5, 0.05


@dataclass(frozen=True)
class Brightness:
    """`low` and below is drawn black, `high` and above white."""

    name: str
    low: float
    high: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """In [0, 1]."""
        return np.clip((values - self.low) / max(self.high - self.low, 1e-8), 0, 1)


def brightness(record: Record, marked: np.ndarray) -> Brightness:
    """Of the first channel of a volume. `marked` (*s) bool: what the picture is about.

    In Hounsfield units the narrowest window that shows nine tenths of it, or else the one that shows most; soft tissue where nothing is
    marked. Blood and organs without contrast medium would fit the brain's window too, which is for heads alone (`in_a_head`).
    """
    values = record.image[0]
    if not hounsfield(record):
        low, high = np.percentile(values, (0.5, 99.5))
        return Brightness("between the 0.5th and 99.5th percentiles of the volume", float(low), float(high))
    name = fitting(values[marked]) if marked.any() else "soft tissue"
    if name == "brain" and not in_a_head(record, marked):
        name = "soft tissue"
    return Brightness(f"{name} window (level {WINDOWS[name][0]}, width {WINDOWS[name][1]} HU)", *ends(name))


def hounsfield(record: Record) -> bool:
    """Whether the values are HU: a DICOM series says what it is, of other files the values themselves tell."""
    source = record.geometry.source if record.geometry else None
    if isinstance(source, Series) and source.modality:
        return source.modality == "CT"
    return float(record.image[0].min()) <= AIR


def ends(name: str) -> tuple[float, float]:
    """What is black and what is white, in HU."""
    level, width = WINDOWS[name]
    return level - width / 2, level + width / 2


def fitting(values: np.ndarray) -> str:
    """The window for these values in HU."""
    shares = {name: float(np.mean((values >= ends(name)[0]) & (values <= ends(name)[1]))) for name in WINDOWS}
    return next((name for name in WINDOWS if shares[name] >= MOST), max(shares, key=lambda name: shares[name]))


def in_a_head(record: Record, marked: np.ndarray) -> bool:
    """Whether what is marked lies in a head: the body through its middle is no wider than 200 mm from right to left, and within 5 mm around
    it hardly anything (a twentieth) is fat or air.
    """
    where = record.geometry or Geometry(np.eye(4), record.shape)
    values, inside = viewed(record.image[0], where), viewed(marked, where)
    spacing = moved(where, like(where)).spacing_mm
    _, y, z = (most(inside, axis) for axis in range(3))
    body = np.flatnonzero(values[:, y, z] > BODY)
    if not len(body) or (body[-1] - body[0] + 1) * spacing[0] > WIDE_MM:
        return False
    around = [slice(max(at.min() - n, 0), at.max() + n + 1) for at, n in zip(np.nonzero(inside), reach(spacing), strict=True)]
    values, inside = values[tuple(around)], inside[tuple(around)]
    ring = (np.asarray(ndimage.distance_transform_edt(~inside, spacing)) <= AROUND_MM) & ~inside
    return not ring.any() or float(np.mean(values[ring] < FAT)) <= LITTLE


def reach(spacing: tuple[float, ...]) -> list[int]:
    """Voxels an axis that `AROUND_MM` takes."""
    return [math.ceil(AROUND_MM / step) for step in spacing]
