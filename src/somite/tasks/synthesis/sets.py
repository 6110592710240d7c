"""What two sets of features say of each other, and of the training images: further tables and numbers of the whole evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...metrics.generation import chance, diversity, kid_interval, manifold, memorised, nearest
from ...metrics.intervals import as_json, reweighted_interval
from ..task import Row

NEIGHBOURS = 5
GENERATED, REAL, HELD_OUT = "generated", "real", "held out"
COPIES = {"memorised": "distance", "copied": "relative"}  # numbers, and the columns of the table "neighbours" that they are of


@dataclass(frozen=True)
class Some:
    """The rows of one kind: of which case each is, by the case's place among `cases`."""

    rows: list[Row]
    at: np.ndarray

    @classmethod
    def of(cls, table: Sequence[Row], kind: str, cases: Sequence[str]) -> "Some":
        place = {case: index for index, case in enumerate(cases)}
        rows = [row for row in table if row["kind"] == kind]
        return cls(rows, np.array([place[row["case"]] for row in rows], int))

    def column(self, name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in self.rows])

    @property
    def features(self) -> np.ndarray:
        """(n, d), from rows whose values may be text."""
        return np.array([[float(row[name]) for name in row if name[0] == "f" and name[1:].isdigit()] for row in self.rows])


def neighbours(table: Sequence[Row], training: np.ndarray, ids: Sequence[str], seen: set[str]) -> list[Row]:
    """For each generated image, and each real one that is not itself of the training images (`seen`), the nearest of those, `ids`."""
    rows = [row for row in table if row["kind"] == GENERATED or row["case"] not in seen]
    index, distance, relative = nearest(Some(rows, np.empty(0)).features, training)
    members: dict[str, int] = {}
    found = []
    for row, i, d, r in zip(rows, index, distance, relative, strict=True):
        made = row["kind"] == GENERATED
        member = members.get(row["case"], 0)
        members[row["case"]] = member + made
        key = {"case": row["case"], "group": row["group"], "kind": GENERATED if made else HELD_OUT, "member": member if made else ""}
        found.append({**key, "nearest": ids[i], "distance": float(d), "relative": float(r)})
    return found


def conclude(tables: dict[str, list[Row]], extractor: str) -> dict[str, Any]:
    """{"sets": number: {"mean", "low", "high", ..., "by": the extractor}}; nothing where there are too few images for it."""
    table = tables["features"]
    groups = {row["case"]: row["group"] for row in table}
    real, made = (Some.of(table, kind, list(groups)) for kind in (REAL, GENERATED))
    if min(len(real.rows), len(made.rows)) <= NEIGHBOURS:
        return {"sets": {}}
    theirs, ours = real.features, made.features
    spread = reweighted_interval(lambda w: diversity(theirs, ours, w[:, real.at], w[:, made.at]), list(groups.values()))
    found = {"kid": as_json(kid_interval(theirs, ours))}
    alone = {"low": None, "high": None, "cases": len(groups), "groups": len(set(groups.values()))}
    found |= {name: {"mean": value, **alone} for name, value in manifold(theirs, ours, NEIGHBOURS).items()}
    found |= {"diversity": as_json(spread)} if np.isfinite(spread.mean) else {}
    found |= copies(tables.get("neighbours", []), groups)
    return {"sets": {name: {**one, "by": extractor} for name, one in found.items()}}


def copies(table: Sequence[Row], groups: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By distance and by relative distance, with what chance would give; nothing where no training or no held-out images are known."""
    held_out, made = (Some.of(table, kind, list(groups)) for kind in (HELD_OUT, GENERATED))
    if not held_out.rows:
        return {}
    found = {}
    for name, column in COPIES.items():
        ours, theirs = made.column(column), held_out.column(column)

        def measure(w: np.ndarray, ours: np.ndarray = ours, theirs: np.ndarray = theirs) -> np.ndarray:
            return memorised(ours, theirs, w[:, made.at], w[:, held_out.at])

        found[name] = {**as_json(reweighted_interval(measure, list(groups.values()))), "chance": chance(len(theirs))}
    return found
