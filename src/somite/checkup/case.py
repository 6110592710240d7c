"""One case, looked at in a process of its own: what its files hold, and what is wrong with them. Nothing here needs torch."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from ..data.fit import fitted
from ..data.geometry import Header
from ..data.raters import raters_of
from ..data.record import Case, read_header, read_image, read_mask, read_mask_header
from ..data.voxels import NotFiniteError
from ..errors import InputError
from .likeness import small

VALUES = 300  # distinct mask values that are counted
GREYS = 5  # distinct values from which on a mask may be softened
BAND = 8  # px from the edge of what is marked: as far as JPEG's blocks reach
SOFTENED = 0.9  # share of in-between values that lie there, if they are the edge's
CORNER = 0.04  # of the image's sides
SAMPLED = 100_000  # pixels that brightness is measured on


@dataclass(frozen=True)
class Job:
    """pixels: whether they are read, or the headers alone. raters: the folder of the raters' masks, if there is one."""

    case: Case
    pixels: bool = True
    raters: Path | None = None


@dataclass(frozen=True)
class MaskFacts:
    """counts: pixels of each value. soft: in-between values lie along the edges alone, as smoothing or JPEG leaves them."""

    counts: dict[int, int]
    soft: bool
    digest: str
    touches: bool  # something is marked at the border of the image
    centre: tuple[float, ...] | None  # of what is marked, in [0, 1] of the sides


@dataclass(frozen=True)
class ImageFacts:
    low: float
    high: float
    bright: float  # 99th percentile
    mean: float
    black_corners: bool
    digest: str
    picture: np.ndarray | None = None  # as of `likeness.small`


@dataclass
class Exam:
    """flaws: (kind, message) of what is wrong. headers: of the image's files, one a channel file. marked: of each rater, whether anything is."""

    id: str
    flaws: list[tuple[str, str]] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    image: ImageFacts | None = None
    mask: MaskFacts | None = None
    marked: tuple[bool, ...] | None = None
    orientation: str | None = None
    spacing: tuple[float, ...] | None = None
    channels: int | None = None
    shape: tuple[int, ...] | None = None
    looked_at: bool = True


def examine(job: Job) -> Exam:
    """Never raises for what a file holds."""
    exam, case = Exam(job.case.id, looked_at=job.pixels), job.case
    try:
        headers(exam, case)
    except InputError as error:
        exam.flaws.append(("unreadable", str(error)))
    except Exception as error:  # a reader's own fault must not end the check of all others
        exam.flaws.append(("unreadable", f"{case.id}: reading its header fails ({type(error).__name__}: {error})"))
    steps = [("unreadable", image), ("mask-unreadable", mask)] if job.pixels and not exam.flaws else []
    for kind, step in steps:
        try:
            step(exam, case)
        except NotFiniteError as error:
            exam.flaws.append(("not-finite", str(error)))
        except InputError as error:
            exam.flaws.append((kind, str(error)))
        except Exception as error:
            exam.flaws.append((kind, f"{case.id}: reading it fails ({type(error).__name__}: {error})"))
    if job.raters is not None and job.pixels and not exam.flaws:
        try:
            exam.marked = tuple(bool(one.any()) for one in raters_of(case, job.raters))
        except InputError as error:
            exam.flaws.append(("raters", str(error)))
    return exam


def examine_all(jobs: list[Job]) -> list[Exam]:
    return [examine(job) for job in jobs]


def headers(exam: Exam, case: Case) -> None:
    """What can be known without a pixel: sizes, places, types, and whether the files of the case fit together."""
    if case.packed is not None:
        pixels = case.packed.pixels
        exam.channels, exam.shape = (3, pixels.shape[:-1]) if pixels.shape[2:] == (3,) else (1, pixels.shape)
        return
    exam.headers = [read_header(path) for path in case.images]
    first = exam.headers[0]
    exam.channels, exam.shape = sum(one.channels for one in exam.headers), first.shape
    if first.geometry is not None:
        import nibabel as nib

        exam.orientation = "".join(nib.aff2axcodes(first.geometry.affine))
        exam.spacing = first.geometry.spacing_mm
    others = [(path, header, "unreadable") for path, header in zip(case.images[1:], exam.headers[1:], strict=True)]
    if case.mask is not None:
        try:
            others.append((case.mask, read_mask_header(case.mask), "mask-mismatch"))
        except InputError as error:
            exam.flaws.append(("mask-unreadable", str(error)))
    for path, header, kind in others:
        try:
            fitted(path, np.broadcast_to(np.uint8(0), header.shape), header.geometry, case.images[0], first.shape, first.geometry)
        except InputError as error:
            exam.flaws.append((kind, str(error)))


def image(exam: Exam, case: Case) -> None:
    array = case.packed.read() if case.packed is not None else np.concatenate([read_image(path)[0] for path in case.images])
    sample = array.reshape(-1)[:: max(1, array.size // SAMPLED)]
    digest = digest_of(array)
    low, high = float(array.min()), float(array.max())
    exam.image = ImageFacts(
        low, high, float(np.percentile(sample, 99)), float(sample.mean()), black_corners(array, low, high), digest, small(array)
    )


def digest_of(array: np.ndarray) -> str:
    """Equal for equal pixels, in whatever file."""
    total = hashlib.sha256(repr(array.shape).encode())
    total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def black_corners(array: np.ndarray, low: float, high: float) -> bool:
    """Whether a flat image has four dark corners though it is not dark: the frame of an endoscope or a dermatoscope."""
    if array.ndim != 3 or not high > low:
        return False
    grey = (array.mean(0) - low) / (high - low)
    h, w = (max(1, round(CORNER * n)) for n in grey.shape)
    corners = [grey[rows, columns].mean() for rows in (slice(h), slice(-h, None)) for columns in (slice(w), slice(-w, None))]
    return bool(max(corners) < 0.1 and grey.mean() > 0.25)


def mask(exam: Exam, case: Case) -> None:
    if case.mask is None:
        return
    raw, _ = read_mask(case.mask)
    found, counts = np.unique(raw, return_counts=True)
    inside = np.nonzero(raw)
    centre = tuple(float((at.mean() + 0.5) / n) for at, n in zip(inside, raw.shape, strict=True)) if len(inside[0]) else None
    touches = any(bool(raw.take(end, axis).any()) for axis in range(raw.ndim) for end in (0, -1))
    counted = dict(zip(found[:VALUES].tolist(), counts[:VALUES].tolist(), strict=True))
    digest = digest_of(raw)
    exam.mask = MaskFacts(counted, softened(raw, len(found)), digest, touches, centre)


def softened(raw: np.ndarray, distinct: int) -> bool:
    """Whether a mask's values between its lowest and highest lie along the edges, as anti-aliasing, resizing or JPEG leave them."""
    if raw.ndim != 2 or distinct < GREYS or raw.max() < 2 * GREYS:
        return False
    between = (raw > 0) & (raw < raw.max())
    marked = 2 * raw >= raw.max()
    size = 2 * BAND + 1
    edge = np.logical_xor(maximum_filter(marked, size), minimum_filter(marked, size))
    return bool((between & edge).sum() >= SOFTENED * between.sum())
