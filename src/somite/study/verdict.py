"""From a study's rows to its table, and to which of the paper's claims hold on these data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from ..metrics.intervals import Interval, interval, paired
from .fair_trial import BASELINES, NETWORKS, cells
from .jobs import RAW, TEMPERATURE

Rows = Sequence[dict[str, Any]]
SHOWN = {"dice": "Dice", "ece": "ECE a case", "ece_foreground": "ECE, foreground", "nll": "NLL"}


@dataclass(frozen=True)
class Claim:
    """A difference with its interval; it holds where the whole interval lies on the claimed side of zero."""

    text: str
    difference: Interval
    below: bool  # claimed: the difference is negative

    @property
    def verdict(self) -> str:
        low, high = self.difference.low, self.difference.high
        if np.isnan(low):
            return "undecided (too few cases)"
        if low <= 0 <= high:
            return "undecided"
        return "holds" if (high < 0) == self.below else "does not hold"


def by_case(rows: Rows, metric: str) -> tuple[dict[str, float], dict[str, str]]:
    """The metric of each case, mean over seeds (and labels), and each case's group."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["case"], []).append(float(row[metric]))
    return {case: float(np.mean(found)) for case, found in values.items()}, {row["case"]: row["group"] for row in rows}


def mean(rows: Rows, metric: str) -> Interval:
    values, groups = by_case(rows, metric)
    return interval(list(values.values()), [groups[case] for case in values])


def difference(first: Rows, second: Rows, metric: str) -> Interval:
    ours, groups = by_case(first, metric)
    theirs, _ = by_case(second, metric)
    shared = [case for case in ours if case in theirs]
    return paired([ours[c] for c in shared], [theirs[c] for c in shared], [groups[c] for c in shared]).difference


def picked(rows: Rows, network: str, method: str, members: int | None, scaling: str) -> list[dict[str, Any]]:
    """The rows of one cell; members None is the largest ensemble."""
    here = [r for r in rows if (r["network"], r["method"], r["scaling"]) == (network, method, scaling)]
    wanted = max((int(r["members"]) for r in here), default=0) if members is None else members
    return [r for r in here if int(r["members"]) == wanted]


def claims(rows: Rows) -> list[Claim]:
    made = []
    for network in NETWORKS:
        diffusion = picked(rows, network, "diffusion", None, RAW)
        for scaling, words in ((RAW, "its feed-forward twin"), (TEMPERATURE, "its temperature-scaled feed-forward twin")):
            twin = picked(rows, network, "feed-forward", 1, scaling)
            if diffusion and twin:
                made.append(
                    Claim(
                        f"{network}: the diffusion ensemble is better calibrated (ECE a case) than {words}",
                        difference(diffusion, twin, "ece"),
                        True,
                    )
                )
        for baseline in BASELINES:
            theirs = picked(rows, baseline, "feed-forward", 1, RAW)
            if diffusion and theirs:
                made.append(Claim(f"{network}: diffusion stays below {baseline} in Dice", difference(diffusion, theirs, "dice"), True))
    return made


def text(found: Interval) -> str:
    return f"{found.mean:.4f}" + ("" if np.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]")


def table(rows: Rows) -> str:
    """Markdown: a line for each cell, means over cases and seeds with 95 % intervals over patients."""
    head = ["network", "method", "members", "evaluations", "scaling", "seeds", *SHOWN.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (network, method, members, scaling), here in cells(rows):
        told = [network, method, str(members), str(here[0]["evaluations"]), scaling, str(len({r["seed"] for r in here}))]
        lines.append("| " + " | ".join([*told, *(text(mean(here, metric)) for metric in SHOWN)]) + " |")
    return "\n".join(lines)


def write_verdict(rows: Rows, out: Path, note: str) -> str:
    """verdict.md: the table, the claims, and how it was made; returns the claims as text."""
    said = "\n".join(f"- {claim.text}: **{claim.verdict}** ({text(claim.difference)})" for claim in claims(rows))
    write_text(out / "verdict.md", f"# Fair trial\n\n{note}\n\n{table(rows)}\n\n## Claims of arXiv 2403.14440 on these data\n\n{said}\n")
    return said
