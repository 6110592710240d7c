"""A prediction as files: PNG for images, NIfTI with the input's own geometry for volumes."""

from collections.abc import Collection
from pathlib import Path

from .data.record import write_map, write_mask
from .errors import InputError
from .predict.ensemble import Result

KINDS = ("mask", "probability", "spread", "members")


def write(result: Result, out: Path, kinds: Collection[str] = ("mask", "probability", "spread")) -> list[Path]:
    """CASE_mask, CASE_probability, CASE_spread, CASE_member-00 ...; with classes one map a class, named by its value."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"--save {unknown[0]}: there is no such output; choose from {', '.join(KINDS)}")
    record = result.record
    name = record.case.id
    values = record.values or range(len(result.probability))
    written = []
    if "mask" in kinds:
        written.append(write_mask(out / f"{name}_mask", result.mask, record))
    for kind in ("probability", "spread"):
        if kind in kinds:
            maps = getattr(result, kind)
            tags = [""] if len(maps) == 1 else [f"-{value}" for value in values]
            written += [write_map(out / f"{name}_{kind}{tag}", one, record) for tag, one in zip(tags, maps, strict=True)]
    if "members" in kinds:
        for index, member in enumerate(result.members):
            tags = [""] if len(member) == 1 else [f"-{value}" for value in values]
            written += [write_map(out / f"{name}_member-{index:02d}{tag}", one, record) for tag, one in zip(tags, member, strict=True)]
    return written
