"""Evaluation writes rows first and averages after: rows.csv, reliability.csv, curves.csv, votes.csv, then metrics.json."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data.digest import digest, summary
from .environment import environment
from .errors import InputError
from .files import read_json, replacing, write_json
from .metrics.calibration import Bins, ece, fit_beta, mce, sampler_floor, vote_ece
from .metrics.intervals import Interval, holm, interval, paired, pooled_interval
from .metrics.overlap import EMPTY_RULE
from .metrics.selective import aurc, excess_aurc
from .pipeline import Run
from .tasks.task import Row, Scored

KEYS = ("case", "group", "label", "size", "tercile")
TERCILES = ("small", "medium", "large")


def evaluate(run: Run, split: str, out: Path, seed: int = 0, progress=iter) -> dict[str, Any]:  # noqa: ANN001
    """Score a split of the run's own data into the folder `out`; `progress` wraps the cases. Returns the summary."""
    cases = run.recipe.data.cases(split)
    settings, scored = run.recipe.task.settings(), list(run.evaluate(progress(cases), seed))
    rows = with_terciles([row for one in scored for row in one.rows])
    summary_ = {
        "split": split,
        "seed": seed,
        **settings,
        "settings": list(settings),  # the names of the task's own
        **run.sampling,
        "root": run.recipe.data.root,
        "unit": "mm" if run.recipe.data.read(cases[0]).spacing else "px",
        "empty_rule": EMPTY_RULE,
        **summarise(rows, scored),
        "data": {"digest": digest(cases), **summary(cases)},
        "environment": environment(),
    }
    write_rows(out / "rows.csv", rows)
    for name in ("bins", "curves", "votes"):
        parts = [row for one in scored for row in getattr(one, name)]
        if parts:
            write_rows(out / {"bins": "reliability.csv"}.get(name, f"{name}.csv"), parts)
    write_json(out / "metrics.json", summary_)
    return summary_


def with_terciles(rows: list[Row]) -> list[Row]:
    """Each row with the tercile of its foreground size among all rows; empty masks are "empty"."""
    sizes = [row["size"] for row in rows if row["size"] > 0]
    edges = np.quantile(sizes, [1 / 3, 2 / 3]) if sizes else [0, 0]
    return [{**row, "tercile": TERCILES[int(np.searchsorted(edges, row["size"]))] if row["size"] else "empty"} for row in rows]


def summarise(rows: Sequence[Row], scored: Sequence[Scored]) -> dict[str, Any]:
    names = [name for name in rows[0] if name not in KEYS]
    groups = [row["group"] for row in rows]
    return {
        "metrics": {name: as_json(interval([row[name] for row in rows], groups)) for name in names},
        "by_size": {
            part: as_json(interval([r["dice"] for r in rows if r["tercile"] == part], [r["group"] for r in rows if r["tercile"] == part]))
            for part in ("empty", *TERCILES)
            if any(r["tercile"] == part for r in rows)
        },
        "by_label": {
            str(label): as_json(
                interval([r["dice"] for r in rows if r["label"] == label], [r["group"] for r in rows if r["label"] == label])
            )
            for label in sorted({row["label"] for row in rows}, key=str)
        },
        "pooled": pooled([row for one in scored for row in one.bins]),
        "selective": selective(rows),
        **floor([row for one in scored for row in one.votes]),
    }


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


def compare(first: Path, second: Path) -> list[Row]:
    """Paired differences first - second of each metric over the cases that both evaluated; Holm over the metrics."""
    ours, theirs = rows_by_key(first), rows_by_key(second)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise InputError(f"{first} and {second} share no cases; evaluate both runs on the same split of the same data")
    names = [n for n in next(iter(ours.values())) if n not in KEYS and n in next(iter(theirs.values()))]
    groups = [ours[key]["group"] for key in shared]
    out = []
    for name in names:
        a, b = ([float(rows[key][name]) for key in shared] for rows in (ours, theirs))
        found = paired(a, b, groups)
        out.append(
            {"metric": name, "first": float(np.mean(a)), "second": float(np.mean(b)), **as_json(found.difference), "p": found.p_value}
        )
    for row, adjusted in zip(out, holm([row["p"] for row in out]), strict=True):
        row["p_holm"] = adjusted
    return out


def rows_by_key(run: Path) -> dict[tuple[str, str], Row]:
    path = run / "rows.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; run `somite evaluate {run}` first")
    return {(row["case"], row["label"]): row for row in read_rows(path)}


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def as_json(found: Interval) -> dict[str, Any]:
    values = {"mean": found.mean, "low": found.low, "high": found.high, "cases": found.cases, "groups": found.groups}
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}


def table(summary: dict[str, Any]) -> str:
    """The main numbers as text."""
    cases = next(iter(summary["metrics"].values()))["cases"]
    lines = [f"{summary['split']}: {cases} rows, {summary['members']} members, {summary['steps']} reverse step(s); mean [95 % interval]"]
    lines += [line(name, found) for name, found in {**summary["metrics"], **pooled_names(summary)}.items()]
    return "\n".join(lines)


def pooled_names(summary: dict[str, Any]) -> dict[str, Any]:
    return {f"pooled {name}": found for name, found in summary["pooled"].items() if name.startswith("ece")}


def line(name: str, found: dict[str, Any]) -> str:
    return f"  {name:24} {with_interval(found)}"


def with_interval(found: dict[str, Any]) -> str:
    """A mean with its interval, where it has one."""
    return f"{found['mean']:.4f}" + ("" if found["low"] is None else f" [{found['low']:.4f}, {found['high']:.4f}]")


def comparison(first: Path, second: Path) -> tuple[list[Row], str]:
    """The rows of `compare` and the same as text."""
    rows = compare(first, second)
    ours, theirs = (read_json(run / "metrics.json") for run in (first, second))
    if ours["data"]["digest"] != theirs["data"]["digest"]:
        raise InputError(f"{first} and {second} were evaluated on other cases; evaluate both in the same way")
    for path, told in ((first, ours), (second, theirs)):
        if "settings" not in told:
            raise InputError(f"{path / 'metrics.json'} does not say how it was scored; run `somite evaluate {path}` again")
    for name in dict.fromkeys([*ours["settings"], *theirs["settings"]]):
        if name not in ("members", "fusion") and ours.get(name) != theirs.get(name):
            found = f"{ours.get(name)} and {theirs.get(name)}"
            raise InputError(f"{first} and {second} were evaluated with another {name} ({found}); evaluate both in the same way")
    fusion = ours.get("fusion") != theirs.get("fusion")
    lines = [f"{first} minus {second}, {rows[0]['cases']} shared cases; mean difference [95 % interval], p (Holm)"]
    for path, told in ((first, ours), (second, theirs)):
        fused = f", fused by {told.get('fusion')}" if fusion else ""
        lines.append(f"{path}: {told['members']} members, {told['steps']} reverse step(s){fused}")
    lines += [f"{line(row['metric'], row)}   p = {row['p_holm']:.3g}" for row in rows]
    return rows, "\n".join(lines)
