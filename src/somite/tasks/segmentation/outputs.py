"""A prediction as files: PNG for images, NIfTI with the input's own geometry for volumes."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ...data.record import write_map, write_mask
from ...predict.ensemble import Result

KINDS = ("mask", "probability", "spread", "members")


def names(case: str, kinds: Collection[str], members: int, channels: int, values: Sequence[int] | None) -> list[str]:
    """What `write` calls its files, without their suffix; with several channels one map a class, named by its value."""
    tags = [""] if channels == 1 else [f"-{value}" for value in values or range(channels)]
    parts = {
        "mask": ["mask"],
        "probability": [f"probability{tag}" for tag in tags],
        "spread": [f"spread{tag}" for tag in tags],
        "members": [f"member-{index:02d}{tag}" for index in range(members) for tag in tags],
    }
    return [f"{case}_{part}" for kind in KINDS if kind in kinds for part in parts[kind]]


def write(result: Result, out: Path, kinds: Collection[str] = ("mask", "probability", "spread")) -> list[Path]:
    """CASE_mask, CASE_probability, CASE_spread, CASE_member-00 ..., in this order."""
    record = result.record
    paths = [out / name for name in names(record.case.id, kinds, result.count, len(result.probability), record.values)]
    maps = {"probability": result.probability, "spread": result.spread}
    maps |= {"members": result.drawn.reshape(-1, *result.mask.shape)} if "members" in kinds else {}
    masks = [write_mask(paths.pop(0), result.mask, record)] if "mask" in kinds else []
    arrays = [one for kind in KINDS if kind in kinds and kind in maps for one in maps[kind]]
    return masks + [write_map(path, one, record) for path, one in zip(paths, arrays, strict=True)]
