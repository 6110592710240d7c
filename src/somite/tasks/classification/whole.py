"""What the whole set says: measures that are no means over cases, each with its interval by a bootstrap over groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...metrics import classification
from ...metrics.calibration import Bins, bins, ece
from ...metrics.intervals import Interval, as_json, pooled_interval, reweighted_interval
from ..task import Row


@dataclass(frozen=True)
class Set:
    """The table "probabilities" as arrays: p and y (n, k), groups (n,)."""

    names: list[str]
    groups: list[str]
    p: np.ndarray
    y: np.ndarray
    exclusive: bool

    @classmethod
    def of(cls, table: Sequence[Row]) -> "Set":
        kind = "class" if "class" in table[0] else "label"
        names = list(dict.fromkeys(str(row[kind]) for row in table))
        groups = {row["case"]: str(row["group"]) for row in table}
        p, y = (np.array([float(row[column]) for row in table]).reshape(len(groups), len(names)) for column in ("probability", "truth"))
        return cls(names, list(groups.values()), p, y, kind == "class")

    @property
    def ordered(self) -> bool:
        """Whether the classes are grades: integers."""
        return all(name.lstrip("-").isdigit() for name in self.names)

    def judged(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and whether they came true, (n, q): of the answer, or of each label."""
        if not self.exclusive:
            return self.p, self.y
        return self.p.max(1, keepdims=True), (self.p.argmax(1) == self.y.argmax(1))[:, None].astype(float)


def conclude(table: Sequence[Row], count: int) -> dict[str, Any]:
    whole = Set.of(table)
    measures = classification.measures(whole.p, whole.y, whole.exclusive, whole.ordered)
    found = {name: reweighted_interval(measure, whole.groups) for name, measure in measures.items()}
    counted = np.stack([bins(p, y, count).array() for p, y in zip(*whole.judged(), strict=True)])
    found["ece"] = pooled_interval(counted, whole.groups, lambda total: ece(Bins(*total)))
    return {"classes": whole.names, "exclusive": whole.exclusive, "pooled": known(found), "by_class": by_class(whole)}


def known(found: dict[str, Interval]) -> dict[str, Any]:
    """Without measures that the set does not have, such as the AUC of one class alone."""
    return {name: as_json(one) for name, one in found.items() if not np.isnan(one.mean)}


def by_class(whole: Set) -> dict[str, dict[str, Any]]:
    """Each class against the rest; "cases" counts those that have it."""
    decided = classification.decided(whole.p, whole.exclusive)
    out: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(whole.names):
        p, d, y = (part[:, [index]] for part in (whole.p, decided, whole.y))
        of = {
            "auc": lambda w, p=p, y=y: classification.auc(p[:, 0], y[:, 0], w),
            "map": lambda w, p=p, y=y: classification.average_precision(p[:, 0], y[:, 0], w),
            "sensitivity": lambda w, d=d, y=y: classification.sensitivity(d, y, w)[0],
            "specificity": lambda w, d=d, y=y: classification.specificity(d, y, w)[0],
            "f1": lambda w, d=d, y=y: classification.f1(d, y, w)[0],
        }
        measured = known({one: reweighted_interval(measure, whole.groups) for one, measure in of.items()})
        for one, found in measured.items():
            out.setdefault(one, {})[name] = {**found, "cases": int(y.sum())}
    return out
