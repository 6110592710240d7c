"""From a study's rows to its table, and to which of the paper's claims hold on these data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.curves import by_case as curve_by_case
from ..evaluation import floor, pooled, with_interval
from ..files import write_text
from ..metrics.intervals import Interval, Paired, holm, interval, paired, pooled_interval
from .fair_trial import BASELINES, NETWORKS, cells
from .jobs import BINS, LOSSES, RAW, ROWS, TEMPERATURE, VOTES

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
TWINS = ((RAW, "its feed-forward twin"), (TEMPERATURE, "its temperature-scaled feed-forward twin"))


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


def picked(rows: Rows, network: str, method: str, members: int | None, scaling: str) -> list[dict[str, Any]]:
    """The rows of one cell; members None is the largest ensemble."""
    here = [r for r in rows if (r["network"], r["method"], r["scaling"]) == (network, method, scaling)]
    wanted = max((int(r["members"]) for r in here), default=0) if members is None else members
    return [r for r in here if int(r["members"]) == wanted]


def compared(words: str, first: Rows, second: Rows, metric: str, below: bool) -> list[Claim]:
    """The claim, where both sides have been run."""
    if not first or not second:
        return []
    found = difference(first, second, metric)
    return [Claim(words, found.difference, below, found.p_value)]


def calibrated(rows: Rows, network: str, words: str, ours: Rows) -> list[Claim]:
    """Against the same network trained feed-forward, raw and temperature-scaled."""
    made = []
    for scaling, twin in TWINS:
        theirs = picked(rows, network, "feed-forward", 1, scaling)
        made += compared(f"{words} better calibrated (ECE a case) than {twin}", ours, theirs, "ece", below=True)
    return made


def claims(rows: Rows, curves: Rows = ()) -> list[Claim]:
    """The paper's: calibration, accuracy, and the loss over time."""
    made = []
    for network in NETWORKS:
        diffusion = picked(rows, network, "diffusion", None, RAW)
        made += calibrated(rows, network, f"{network}: the diffusion ensemble is", diffusion)
        for baseline in BASELINES:
            theirs = picked(rows, baseline, "feed-forward", 1, RAW)
            made += compared(f"{network}: diffusion stays below {baseline} in Dice", diffusion, theirs, "dice", below=True)
        here = [row for row in curves if row["network"] == network]
        if here:
            told = f"{network}: the noise loss of diffusion is highest between the ends of t (peak over the higher end)"
            made.append(Claim(told, peak_over_ends(here), below=False))
    return adjusted(made)


def by_velocity(rows: Rows) -> list[Claim]:
    """Not the paper's: what of diffusion's rank is owed to noise prediction."""
    made = []
    for network in NETWORKS:
        ours = picked(rows, network, "v-diffusion", None, RAW)
        words = f"{network}: v-diffusion is"
        made += compared(
            f"{words} more accurate (Dice) than diffusion", ours, picked(rows, network, "diffusion", None, RAW), "dice", below=False
        )
        made += calibrated(rows, network, words, ours)
        twin = picked(rows, network, "feed-forward", 1, RAW)
        made += compared(f"{words} more accurate (Dice) than its feed-forward twin", ours, twin, "dice", below=False)
    return adjusted(made)


def at_equal_cost(rows: Rows) -> list[Claim]:
    """Not the paper's: as many one-step or feed-forward members as one diffusion sample takes steps, against that sample."""
    made = []
    for network in NETWORKS:
        sample = picked(rows, network, "diffusion", 1, RAW)
        cost = sample[0]["evaluations"] if sample else None
        for method in ("one-step", "feed-forward"):
            ensemble = [r for r in rows if (r["network"], r["method"], r["scaling"]) == (network, method, RAW) and r["evaluations"] == cost]
            told = f"{network}: {cost} {method} members are {{}} than one diffusion sample of {cost} steps"
            made += compared(told.format("more accurate (Dice)"), ensemble, sample, "dice", below=False)
            made += compared(told.format("better calibrated (ECE a case)"), ensemble, sample, "ece", below=True)
    return adjusted(made)


def adjusted(made: Sequence[Claim]) -> list[Claim]:
    """With p-values adjusted for the number of those that have one."""
    given = iter(holm([claim.p_value for claim in made if claim.p_value is not None]))
    return [claim if claim.p_value is None else replace(claim, adjusted=next(given)) for claim in made]


def peak_over_ends(rows: Rows) -> Interval:
    """The largest mean loss at an inner t minus the larger one of the two ends, with a bootstrap over groups of the whole
    statistic: each draw finds its own peak.
    """
    parts, groups = [], []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        losses, groups, _ = curve_by_case([row for row in rows if row["seed"] == seed], lambda row: float(row["loss_eps"]))
        parts.append(losses)
    losses = np.mean(parts, axis=0)
    ones = np.ones((len(losses), 1))

    def statistic(total: np.ndarray) -> float:
        loss = total[:-1] / total[-1]
        return float(loss[1:-1].max() - max(loss[0], loss[-1]))

    return pooled_interval(np.hstack([losses, ones]), groups, statistic)


def text(found: Interval) -> str:
    return f"{found.mean:.4f}" + ("" if np.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]")


def table(rows: Rows, bins: Rows = (), votes: Rows = ()) -> str:
    """Markdown: a line for each cell, means over cases and seeds with 95 % intervals over groups. Bins and votes add their columns."""
    head = ["network", "method", "members", "evaluations", "scaling", "seeds", "SD of Dice over seeds", *SHOWN.values()]
    head += [POOLED, VOTED] if bins else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    of_bins, of_votes = dict(cells(bins)), dict(cells(votes))
    for cell, here in cells(rows):
        network, method, members, scaling = cell
        spread = seed_spread(here, "dice")
        told = [network, method, str(members), str(here[0]["evaluations"]), scaling, str(len({r["seed"] for r in here}))]
        told += ["" if np.isnan(spread) else f"{spread:.4f}", *(text(mean(here, metric)) for metric in SHOWN)]
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


def write_verdict(tables: Mapping[str, Rows], out: Path, note: str) -> str:
    """verdict.md: the table, the claims, and how it was made; returns the paper's claims as text."""
    rows, bins, votes, curves = (tables[name] for name in (ROWS, BINS, VOTES, LOSSES))
    lists = {
        "Claims of arXiv 2403.14440 on these data": claims(rows, curves),
        "With v prediction, which is not the paper's": by_velocity(rows),
        "At equal numbers of evaluations": at_equal_cost(rows),
    }
    picture = "![Dice and calibration of every cell, and the noise loss over t](fair-trial.png)"
    parts = ["# Fair trial", note, picture, table(rows, bins, votes), ECE + (VOTES_AND_FLOOR if bins else "")]
    parts += [RULE] if any(lists.values()) else []
    parts += [f"## {title}\n\n{listed(made)}" for title, made in lists.items() if made]
    write_text(out / "verdict.md", "\n\n".join(parts) + "\n")
    return listed(next(iter(lists.values())))
