"""All metrics of one label of one case."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...metrics import calibration, uncertainty
from ...metrics.overlap import overlap
from ...metrics.risk import PLAIN, rates
from ...metrics.surface import surface
from ...predict.ensemble import Result
from ...predict.fusion import Fusion, votes

Row = dict[str, Any]


class Label:
    """One label of one case, as the metrics want it: binary arrays in the case's own geometry."""

    def __init__(self, result: Result, label: int, channel: int) -> None:
        record = result.record
        self.result, self.label = result, label
        self.truth = record.truth == label
        self.mask = result.mask == label
        self.probability = result.probability[channel].clip(0, 1)
        self.members = result.drawn[:, channel]
        self.votes = votes(result.drawn)[:, channel]
        self.spacing = record.spacing or (1.0,) * self.truth.ndim
        value = record.values[label] if record.values else label
        self.key = {"case": record.case.id, "group": record.group, "label": value}


def labels_of(result: Result) -> range:
    """The foreground labels."""
    return range(1, max(len(result.probability), 2))


def dice(result: Result) -> float:
    """The mean over the foreground labels."""
    return float(np.mean([overlap(result.mask == label, result.record.truth == label)["dice"] for label in labels_of(result)]))


def likeness(result: Result, other: Result) -> float:
    """The Dice of two masks of a case, the mean over the foreground labels."""
    return float(np.mean([overlap(result.mask == label, other.mask == label)["dice"] for label in labels_of(result)]))


def sureness(result: Result) -> dict[str, float]:
    """Signs of how good a mask is that need no truth, the means over the foreground labels: "expected", the Dice that its own probabilities
    foretell, and "members", how alike the members' masks are, where several were kept.
    """
    single = len(result.probability) == 1
    at = [(label, 0 if single else label) for label in labels_of(result)]
    told = {"expected": [uncertainty.expected_dice(result.probability[k].clip(0, 1), result.mask == label) for label, k in at]}
    if result.members is not None and result.count > 1:
        drawn = votes(result.members)
        told["members"] = [1 - uncertainty.disagreement(drawn[:, k]) for _, k in at]
    return {name: float(np.mean(values)) for name, values in told.items()}


def risk_rows(result: Result, threshold: float) -> Iterator[Row]:
    """What a controlled mask misses and what it marks for nothing, and what the mask at 0.5 would."""
    key, truth = {"case": result.record.case.id, "group": result.record.group}, result.record.truth > 0
    yield {**key, "threshold": threshold, **rates(result.mask > 0, truth)}
    yield {**key, "threshold": PLAIN, **rates(result.probability[0] >= PLAIN, truth)}


def row(one: Label, tolerance: float, boundary: int, bins: int) -> Row:
    """A row of rows.csv."""

    def ece(where) -> float:  # noqa: ANN001 - an index: a mask or ...
        return calibration.ece(calibration.bins(one.probability[where], one.truth[where], bins))

    told = {
        **one.key,
        "size": int(one.truth.sum()),
        **overlap(one.mask, one.truth),
        **surface(one.mask, one.truth, one.spacing, tolerance),
        "brier": calibration.brier(one.probability, one.truth),
        "nll": calibration.nll(one.probability, one.truth),
        "ece": ece(...),
        "ece_foreground": ece(calibration.foreground(one.probability, one.truth)),
        "ece_boundary": ece(calibration.boundary_band(one.truth, boundary)),
        "nqm": uncertainty.nqm(one.members),
    }
    return told | ({"disagreement": uncertainty.disagreement(one.votes)} if len(one.members) > 1 else {})


def reliability(one: Label, boundary: int, bins: int) -> Iterator[Row]:
    """A row for each bin of each region."""
    regions = {
        "all": np.ones_like(one.truth),
        "foreground": calibration.foreground(one.probability, one.truth),
        "boundary": calibration.boundary_band(one.truth, boundary),
    }
    for name, region in regions.items():
        counted = calibration.bins(one.probability[region], one.truth[region], bins).array()
        for index, (count, confidence, positives) in enumerate(counted.T.tolist()):
            yield {**one.key, "region": name, "bin": index, "count": count, "confidence": confidence, "positives": positives}


def by_members(one: Label, fusion: Fusion) -> Iterator[Row]:
    """Dice of the first 1, 2, 3, 5, 10 ... members."""
    for count in sorted({n for n in (1, 2, 3, 5, 10, 20, 50, 100) if n < len(one.members)} | {len(one.members)}):
        fused = fusion.decide(fusion(one.result.drawn[:count])) == one.label
        yield {**one.key, "axis": "members", "at": count, "dice": overlap(fused, one.truth)["dice"]}


def vote_rows(one: Label) -> Iterator[Row]:
    """How many pixels got k of the members' votes, and how many of those are foreground."""
    for k, (n, y) in enumerate(calibration.vote_counts(one.votes, one.truth).T.tolist()):
        yield {**one.key, "votes": k, "pixels": n, "positives": y}
