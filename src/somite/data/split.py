"""Splits for data that bring none: by patient, by hash, so that they stay when cases are added.

A group's place is u = hash(seed, group) in [0, 1); the splits divide [0, 1) by their rates. No other case matters, so a
case that is added later moves nobody, except where a split would be empty and is given one group.

Folds are for cross-validation, where equal sizes matter more: the groups in the order of their hashes are dealt out in
turn, so a case that is added later does move others.
"""

from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path

from ..errors import InputError
from ..files import read_json
from ..rng import derive
from .listing import check_splits
from .record import Case


def assign(cases: Sequence[Case], rates: Mapping[str, float], seed: int) -> dict[str, list[Case]]:
    """The cases of each split; the rates say which part of the groups each is to have, and sum to 1."""
    if not isclose(sum(rates.values()), 1, abs_tol=1e-6) or min(rates.values()) < 0:
        raise InputError(f"split rates are parts of 1, got {dict(rates)}: give train 0.7, val 0.1, test 0.2 say")
    wanted = [name for name, rate in rates.items() if rate > 0]
    groups = sorted({case.group for case in cases})
    if len(groups) < max(3, len(wanted)):
        raise InputError(
            f"{len(groups)} groups (patients) cannot be split into {', '.join(wanted)}: "
            "add cases, or say which case belongs where in a splits.json"
        )
    place = {group: derive("split", seed, group) / 2**63 for group in groups}
    home = {group: _at(place[group], rates) for group in groups}
    for name in wanted:
        if name not in home.values():
            largest = max(wanted, key=lambda other: list(home.values()).count(other))
            home[min((g for g in groups if home[g] == largest), key=place.__getitem__)] = name
    return {name: [case for case in cases if home[case.group] == name] for name in rates}


def folds(cases: Sequence[Case], n: int = 5, seed: int = 0) -> list[dict[str, list[Case]]]:
    """n divisions into "train" and "val", by patient: each case is in "val" of exactly one; patients a fold differ by one at most."""
    groups = sorted({case.group for case in cases}, key=lambda group: (derive("fold", seed, group), group))
    if n < 2 or len(groups) < n:
        raise InputError(f"{n} folds of {len(groups)} groups (patients): give 2 to {len(groups)} folds (--data.folds)")
    home = {group: index % n for index, group in enumerate(groups)}
    return [
        {"train": [case for case in cases if home[case.group] != k], "val": [case for case in cases if home[case.group] == k]}
        for k in range(n)
    ]


def divided(
    found: Mapping[str, list[Case]], fold: int, n: int, seed: int, listing: Path, known: Mapping[str, Case]
) -> dict[str, list[Case]]:
    """Training and validation cases as this fold of n has them: as listed in nnU-Net's splits_final.json where that is there, else anew."""
    pool = sorted([*found.get("train", []), *found.get("val", [])], key=lambda case: case.id)
    if not listing.is_file():
        return {**found, **folds(pool, n, seed)[fold]}
    listed = read_json(listing)
    parts = [part for part in listed if isinstance(part, dict) and {"train", "val"} <= set(part)] if isinstance(listed, list) else []
    if len(parts) != n:
        raise InputError(f"{listing} does not list {n} folds of train and val; set --data.folds to as many as it has, or mend it")
    chosen = {name: [str(i) for i in parts[fold][name]] for name in ("train", "val")}
    check_splits(listing, {**chosen, "test": [case.id for case in found.get("test", [])]}, known)
    return {**found, **{name: [known[i] for i in sorted(ids)] for name, ids in chosen.items()}}


def _at(u: float, rates: Mapping[str, float]) -> str:
    """The split whose interval u falls in."""
    end = 0.0
    last = ""
    for name, rate in rates.items():
        end += rate
        if rate > 0:
            last = name
            if u < end:
                return name
    return last
