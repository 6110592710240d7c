"""Masks and probabilities as DICOM Segmentation objects that refer to the series they were made from, through highdicom.

What names the patient and the study is copied from the series, as the standard wants it: such a file identifies the patient as the series
does. Ids are functions of what the file says, not drawn: the same answer has the same id. A series whose ids were blanked gets ids in
their place that are made of its files' contents; the object then lies in the right place, but points to ids that the series has not.
"""

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import InputError
from ..files import replacing, sha256
from .geometry import Geometry, Series

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["BINARY", "FRACTIONAL", "LABELMAP"]
_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
_EMPTY = {  # by the standard they may be empty but not absent; anonymisers take them out
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
}
_MISSING = (AttributeError, KeyError, TypeError, ValueError)


def require() -> None:
    """Raises InputError where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError("DICOM-SEG needs the highdicom library: pip install 'somite[dicom]'") from error


def write_segmentation(path: Path, segments: np.ndarray, labels: Sequence[str], where: Geometry, kind: Kind = "BINARY") -> None:
    """Write segments that lie on a DICOM series: one for each of `labels`, numbered from 1.

    segments: (x, y, z) integers, 0 for what is in none, for BINARY (one plane of bits a segment and slice) and LABELMAP (numbers);
    (segments, x, y, z) in [0, 1] for FRACTIONAL (probabilities, in 255 steps). Raises InputError where the series lacks what the standard
    wants of it.
    """
    require()
    if not isinstance(where.source, Series) or segments.shape[-3:] != where.shape:
        raise ValueError(f"segments of {segments.shape} for a series of {where.shape}")
    try:
        made = _made(segments, labels, where, where.source.files, kind)
    except _MISSING as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{where.source.files[0].parent} says things that a DICOM-SEG cannot repeat ({why}): export the series again, or save the mask as NIfTI"
        ) from error
    with replacing(path) as temporary:
        made.save_as(temporary)


def _made(segments: np.ndarray, labels: Sequence[str], where: Geometry, files: Sequence[Path], kind: Kind) -> "Dataset":
    import highdicom as hd
    from pydicom.sr.codedict import codes

    program = version("somite")
    x, y, z = where.spacing_mm
    sources = _sources(files, z)
    algorithm = hd.AlgorithmIdentificationSequence("somite", codes.DCM.ArtificialIntelligence, program)
    descriptions = [
        hd.seg.SegmentDescription(
            number, label, codes.SCT.AnatomicalStructure, codes.SCT.AnatomicalStructure, "AUTOMATIC", algorithm_identification=algorithm
        )
        for number, label in enumerate(labels, 1)
    ]
    frames = np.ascontiguousarray(np.moveaxis(segments, (-1, -2, -3), (0, 1, 2)))  # (slices, rows, columns), segments last
    frames = frames.astype(np.float32) if kind == "FRACTIONAL" else frames.astype(np.uint8 if len(labels) < 256 else np.uint16)
    unique = _id("".join(one.SOPInstanceUID for one in sources), kind, hashlib.sha256(frames.tobytes()).hexdigest())
    return hd.seg.Segmentation(
        sources,
        frames,
        kind,
        descriptions,
        series_instance_uid=_id(unique, "series"),
        series_number=300,
        sop_instance_uid=unique,
        instance_number=1,
        manufacturer="somite",
        manufacturer_model_name="somite",
        software_versions=program,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description="Made by a network, not by a physician",
        pixel_measures=hd.PixelMeasuresSequence([y, x], float(sources[0].SliceThickness), z),
        omit_empty_frames=bool(frames.any()),
    )


def _sources(files: Sequence[Path], distance: float) -> "Sequence[Dataset]":
    """The headers of a series, ids filled in where they were blanked, as far as a segmentation repeats them. distance: of slices, in mm."""
    from pydicom import dcmread

    sources = [dcmread(path, stop_before_pixels=True) for path in files]
    whole = ""

    def common(what: str) -> Callable[[Path], str]:
        def made(_: Path) -> str:
            nonlocal whole
            whole = whole or "".join(map(sha256, files))
            return _id(whole, what)

        return made

    wanted = {name: common(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    wanted["SOPInstanceUID"] = lambda path: _id(sha256(path))
    for path, source in zip(files, sources, strict=True):
        for name, make in wanted.items():
            if not source.get(name):
                setattr(source, name, make(path))
        for name in _EMPTY - set(source.dir()):
            setattr(source, name, "")
        source.SliceThickness = source.get("SliceThickness") or distance
        if not source.get("SOPClassUID"):
            source.SOPClassUID = _CLASSES.get(str(source.get("Modality")), _CLASSES["CT"])
    return sources


def _id(*parts: str) -> str:
    """A DICOM id made of a digest: the form for UUIDs, 2.25 and at most 39 digits."""
    return f"2.25.{int(hashlib.sha256('/'.join(parts).encode()).hexdigest()[:32], 16)}"
