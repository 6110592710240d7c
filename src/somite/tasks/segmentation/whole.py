"""What the whole set says: strata by size and label, pooled calibration, selective prediction, the floor of vote shares."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...metrics.calibration import Bins, ece, fit_beta, mce, sampler_floor, vote_ece
from ...metrics.conformal import grouped
from ...metrics.intervals import as_json, interval, pooled_interval
from ...metrics.overlap import EMPTY_RULE
from ...metrics.selective import aurc, excess_aurc
from ...predict.control import Controlled

Row = dict[str, Any]
TERCILES = ("small", "medium", "large")


def conclude(rows: Sequence[Row], tables: dict[str, list[Row]]) -> dict[str, Any]:
    return {
        "empty_rule": EMPTY_RULE,
        "by_size": by(rows, "tercile", [part for part in ("empty", *TERCILES) if any(row["tercile"] == part for row in rows)]),
        "by_label": by(rows, "label", sorted({row["label"] for row in rows}, key=str)),
        "pooled": pooled(tables["reliability"]),
        "selective": selective(rows),
        **floor(tables["votes"]),
    }


def by(rows: Sequence[Row], column: str, parts: Sequence[Any]) -> dict[str, Any]:
    """Dice of each part of the rows."""
    found = {str(part): [row for row in rows if row[column] == part] for part in parts}
    return {part: as_json(interval([row["dice"] for row in some], [row["group"] for row in some])) for part, some in found.items()}


def with_terciles(rows: list[Row]) -> list[Row]:
    """Each row with the tercile of its foreground size among all rows; empty masks are "empty"."""
    sizes = [row["size"] for row in rows if row["size"] > 0]
    edges = np.quantile(sizes, [1 / 3, 2 / 3]) if sizes else [0, 0]
    return [{**row, "tercile": TERCILES[int(np.searchsorted(edges, row["size"]))] if row["size"] else "empty"} for row in rows]


def pooled(bins: Sequence[Row]) -> dict[str, Any]:
    """ECE and MCE of all pixels together, by region, with a bootstrap over groups."""
    out = {}
    for region in dict.fromkeys(row["region"] for row in bins):
        here = [row for row in bins if row["region"] == region]
        keys = list(dict.fromkeys((row["case"], row["label"]) for row in here))
        count = 1 + max(row["bin"] for row in here)
        table = np.zeros((len(keys), 3, count))
        group = {}
        place = {key: i for i, key in enumerate(keys)}
        for row in here:
            key = (row["case"], row["label"])
            table[place[key], :, row["bin"]] = row["count"], row["confidence"], row["positives"]
            group[key] = row["group"]
        groups = [group[key] for key in keys]
        for name, statistic in (("ece", ece), ("mce", mce)):
            out[f"{name}_{region}"] = as_json(pooled_interval(table, groups, lambda total, s=statistic: s(Bins(*total))))
    return out


def selective(rows: Sequence[Row]) -> dict[str, float]:
    """Would the cases that the ensemble is sure of have been the good ones? Risk 1 - Dice, confidence -NQM."""
    risk, confidence = [1 - row["dice"] for row in rows], [-row["nqm"] for row in rows]
    return {"aurc": aurc(risk, confidence), "excess_aurc": excess_aurc(risk, confidence)}


def floor(votes: Sequence[Row]) -> dict[str, Any]:
    """The ECE of the members' vote shares, and what a perfect sampler with as many would show (a Beta fitted to the votes)."""
    if not votes:
        return {}
    members = max(row["votes"] for row in votes)
    counted = np.zeros((2, members + 1))
    for row in votes:
        counted[:, row["votes"]] += row["pixels"], row["positives"]
    alpha, beta = fit_beta(counted[0])
    found = {"ece": sampler_floor(alpha, beta, members), "votes": vote_ece(*counted)}
    return {"sampler_floor": {**found, "alpha": alpha, "beta": beta, "members": members}}


def control(fusion: Controlled, risks: Sequence[Row]) -> dict[str, Any]:
    """The controlled risk as it was found on these cases, and what the mask at 0.5 would have had: means over groups, each the mean over
    its cases for which the risk has a meaning. None where there are no such cases.
    """
    told = {"risk": fusion.risk, "target": fusion.target, "threshold": fusion.threshold, "guarantee": fusion.guarantee}
    for name, rows in (("found", risks[::2]), ("at_half", risks[1::2])):
        values = np.array([row[fusion.risk] for row in rows])
        means = grouped(values, [row["group"] for row in rows])
        told[name] = {**as_json(interval(means, range(len(means)))), "cases": int(np.isfinite(values).sum())} if len(means) else None
    return told
