"""What studies share after their jobs: claims with intervals and adjusted p-values, and the table of all cells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import with_interval
from ..files import write_text
from ..metrics.intervals import Interval, Paired, holm, interval, paired
from ..tasks.segmentation.whole import floor, pooled
from .jobs import ROWS
from .masks import BINS, VOTES

Rows = Sequence[dict[str, Any]]
SHOWN = {"dice": "Dice", "ece": "ECE a case", "ece_foreground": "ECE, foreground", "nll": "NLL"}
RULE = """A claim holds where the whole 95 % interval of the difference lies on its side of zero and p, where there is one, is at most 0.05; seeds
are averaged before cases, and intervals are over groups (patients, sequences). p is Wilcoxon's over groups, adjusted by Holm for all
claims of the list that have one; with six groups it cannot fall below 0.03, and adjusted nothing can be decided."""
ECE = """ECE: 15 bins of equal width of the foreground probability, closed on the right; the mean over cases. Ensembles of different sizes do not
compare without their floors."""
VOTES_AND_FLOOR = """ Pooled: of all pixels of all cases and seeds. Of vote shares (k of N members): a bin for each k; beside it the floor, the
error that a perfect sampler with as many members would show."""
POOLED, VOTED = "ECE pooled", "ECE of votes (floor)"
LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """A difference with its interval; it holds where the whole interval lies on the claimed side of zero, and the adjusted
    p-value agrees where there is one: intervals over few groups are too short, and a rank test knows that.
    """

    text: str
    difference: Interval
    below: bool  # claimed: the difference is negative
    p_value: float | None = None  # None where the claim is about no paired difference
    adjusted: float | None = None

    @property
    def verdict(self) -> str:
        low, high = self.difference.low, self.difference.high
        if np.isnan(low):
            return "undecided (too few cases)"
        if low <= 0 <= high or (self.adjusted is not None and self.adjusted > LEVEL):
            return "undecided"
        return "holds" if (high < 0) == self.below else "does not hold"

    def line(self) -> str:
        p = "" if self.adjusted is None else f", p = {self.adjusted:.2g}"
        return f"- {self.text}: **{self.verdict}** ({text(self.difference)}{p})"


def by_case(rows: Rows, metric: str) -> tuple[dict[str, float], dict[str, str]]:
    """The metric of each case, mean over seeds (and labels), and each case's group."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["case"], []).append(float(row[metric]))
    return {case: float(np.mean(found)) for case, found in values.items()}, {row["case"]: row["group"] for row in rows}


def mean(rows: Rows, metric: str) -> Interval:
    values, groups = by_case(rows, metric)
    return interval(list(values.values()), [groups[case] for case in values])


def seed_spread(rows: Rows, metric: str) -> float:
    """The standard deviation of the seeds' means; NaN for one seed."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    means = [mean([row for row in rows if row["seed"] == seed], metric).mean for seed in seeds]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def difference(first: Rows, second: Rows, metric: str) -> Paired:
    ours, groups = by_case(first, metric)
    theirs, _ = by_case(second, metric)
    shared = [case for case in ours if case in theirs]
    return paired([ours[c] for c in shared], [theirs[c] for c in shared], [groups[c] for c in shared])


def picked(rows: Rows, members: int | None, scaling: str, **cell: str) -> list[dict[str, Any]]:
    """The rows of one cell (network="EnsemDiff", method="diffusion"); members None is the largest ensemble."""
    here = [r for r in rows if r["scaling"] == scaling and all(r[key] == value for key, value in cell.items())]
    wanted = max((int(r["members"]) for r in here), default=0) if members is None else members
    return [r for r in here if int(r["members"]) == wanted]


def cells(rows: Rows, columns: Sequence[str]) -> Iterator[tuple[tuple, list[dict[str, Any]]]]:
    """Rows by (*columns, members, scaling), in the order of the grid."""
    parts: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault((*(row[key] for key in columns), int(row["members"]), row["scaling"]), []).append(row)
    yield from parts.items()


def compared(words: str, first: Rows, second: Rows, metric: str, below: bool) -> list[Claim]:
    """The claim, where both sides have been run."""
    if not first or not second:
        return []
    found = difference(first, second, metric)
    return [Claim(words, found.difference, below, found.p_value)]


def adjusted(made: Sequence[Claim]) -> list[Claim]:
    """With p-values adjusted for the number of those that have one."""
    given = iter(holm([claim.p_value for claim in made if claim.p_value is not None]))
    return [claim if claim.p_value is None else replace(claim, adjusted=next(given)) for claim in made]


def text(found: Interval) -> str:
    return f"{found.mean:.4f}" + ("" if np.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]")


def table(rows: Rows, columns: Sequence[str], metrics: Mapping[str, str], bins: Rows = (), votes: Rows = ()) -> str:
    """Markdown: a line for each cell, means over cases and seeds with 95 % intervals over groups. Bins and votes add their columns."""
    first = next(iter(metrics))
    head = [*columns, "members", "evaluations", "scaling", "seeds", f"SD of {metrics[first]} over seeds", *metrics.values()]
    head += [POOLED, VOTED] if bins else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    of_bins, of_votes = dict(cells(bins, columns)), dict(cells(votes, columns))
    for cell, here in cells(rows, columns):
        *names, members, scaling = cell
        spread = seed_spread(here, first)
        told = [*names, str(members), str(here[0]["evaluations"]), scaling, str(len({r["seed"] for r in here}))]
        told += ["" if np.isnan(spread) else f"{spread:.4f}", *(text(mean(here, metric)) for metric in metrics)]
        if bins:
            told += [pooled_ece(of_bins[cell]) if cell in of_bins else "", voted(of_votes[cell]) if cell in of_votes else ""]
        lines.append("| " + " | ".join(told) + " |")
    return "\n".join(lines)


def pooled_ece(bins: Rows) -> str:
    """The calibration error of all pixels of all cases and seeds together."""
    read = [
        {**row, "case": (row["case"], row["seed"]), "bin": int(row["bin"])}
        | {key: float(row[key]) for key in ("count", "confidence", "positives")}
        for row in bins
    ]
    return with_interval(pooled(read)["ece_all"])


def voted(votes: Rows) -> str:
    """The calibration error of the members' vote shares, and what a perfect sampler with as many would show."""
    found = floor([{key: int(float(row[key])) for key in ("votes", "pixels", "positives")} for row in votes])["sampler_floor"]
    return f"{found['votes']:.4f} ({found['ece']:.4f})"


def listed(made: Sequence[Claim]) -> str:
    return "\n".join(claim.line() for claim in made)


def of_masks(tables: Mapping[str, Rows], columns: Sequence[str], metrics: Mapping[str, str]) -> list[str]:
    """The table of all cells, and how its calibration errors are to be read."""
    rows, bins, votes = (tables.get(name, ()) for name in (ROWS, BINS, VOTES))
    ece = [ECE + (VOTES_AND_FLOOR if bins else "")] if "ece" in metrics else []
    return [table(rows, columns, metrics, bins, votes), *ece]


def write(path: Path, parts: Sequence[str], claims: Mapping[str, Sequence[Claim]], rule: str = RULE) -> str:
    """verdict.md: what it is, the table of all cells, the claims with their `rule`; returns the first list of claims as text."""
    told = [*parts, *([rule] if any(claims.values()) else [])]
    told += [f"## {title}\n\n{listed(made)}" for title, made in claims.items() if made]
    write_text(path, "\n\n".join(told) + "\n")
    return listed(next(iter(claims.values()), []))
