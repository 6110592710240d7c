"""A prediction as files: PNG for images, NIfTI with the input's own geometry for volumes, DICOM-SEG for DICOM series."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ...data.dicom import is_series
from ...data.dicom_seg import Kind, require, write_segmentation
from ...data.record import Case, write_map, write_mask
from ...errors import InputError
from ...predict.ensemble import Result

DICOM: dict[str, Kind] = {"dicom-seg": "BINARY", "dicom-fractional": "FRACTIONAL", "dicom-labelmap": "LABELMAP"}
KINDS = ("mask", "probability", "spread", "members", *DICOM)


def names(case: str, kinds: Collection[str], members: int, channels: int, values: Sequence[int] | None) -> list[str]:
    """What `write` calls its files, without their suffix; with several channels one map a class, named by its value."""
    tags = [""] if channels == 1 else [f"-{value}" for value in values or range(channels)]
    parts = {
        "mask": ["mask"],
        "probability": [f"probability{tag}" for tag in tags],
        "spread": [f"spread{tag}" for tag in tags],
        "members": [f"member-{index:02d}{tag}" for index in range(members) for tag in tags],
        **{kind: [kind] for kind in DICOM},
    }
    return [f"{case}_{part}" for kind in KINDS if kind in kinds for part in parts[kind]]


def write(result: Result, out: Path, kinds: Collection[str] = ("mask", "probability", "spread")) -> list[Path]:
    """CASE_mask, CASE_probability, CASE_spread, CASE_member-00 ..., CASE_dicom-seg ..., in this order."""
    record = result.record
    admit(record.case, kinds)
    paths = [out / name for name in names(record.case.id, kinds, result.count, len(result.probability), record.values)]
    maps = {"probability": result.probability, "spread": result.spread}
    maps |= {"members": result.drawn.reshape(-1, *result.mask.shape)} if "members" in kinds else {}
    masks = [write_mask(paths.pop(0), result.mask, record)] if "mask" in kinds else []
    arrays = [one for kind in KINDS if kind in kinds and kind in maps for one in maps[kind]]
    objects = [kind for kind in DICOM if kind in kinds]
    stems, paths = paths[len(arrays) :], paths[: len(arrays)]
    written = masks + [write_map(path, one, record) for path, one in zip(paths, arrays, strict=True)]
    return written + [_write_object(stem, result, DICOM[kind]) for stem, kind in zip(stems, objects, strict=True)]


def admit(case: Case, kinds: Collection[str]) -> None:
    """Raises InputError where a DICOM-SEG is wanted and there is no series to refer to, or no library to write it."""
    kind = next((kind for kind in DICOM if kind in kinds), None)
    if kind is None:
        return
    require()
    if not (case.images and is_series(case.images[0])):
        scan = case.images[0] if case.images else case.id
        raise InputError(
            f"--save {kind}: {scan} is no folder of a DICOM series, which a DICOM-SEG refers to; leave {kind} out (mask gives NIfTI or PNG)"
        )


def _write_object(stem: Path, result: Result, kind: Kind) -> Path:
    """The foreground classes as segments, named by their values in mask files; or their probabilities."""
    record, path = result.record, stem.with_name(f"{stem.name}.dcm")
    assert record.geometry is not None  # of a series: `write` has asked `admit`
    labels = ["foreground"] if record.values is None else [f"label {value}" for value in record.values[1:]]
    maps = result.probability if len(result.probability) == 1 else result.probability[1:]
    write_segmentation(path, maps if kind == "FRACTIONAL" else result.mask, labels, record.geometry, kind)
    return path
