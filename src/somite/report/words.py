"""The sentences that the report and the model card share."""

from dataclasses import dataclass
from typing import Any

from ..tasks.view import Number, View
from ..wording import count, interval, number

NOTICE = "Research use only. Not a medical device."
LIMITS = (
    "The numbers hold for data like those it was evaluated on: the same scanner or microscope, population and annotation. "
    "Evaluate on your own before you rely on them.",
    "An interval covers the sampling of cases, not the choice of training seed, and says nothing of other sites.",
    "The probability is the model's opinion; how well it is calibrated is measured on the evaluation split alone.",
    "Spread between members shows what the model finds ambiguous. Errors that all members share do not show in it.",
)


@dataclass(frozen=True)
class Line:
    """One line of the table, ready to print."""

    name: str
    mean: str
    interval: str
    better: str
    text: str
    track: dict[str, str] | None  # where mean and interval lie on [0, 1], in per cent
    large: bool  # shown at the top


def lines(view: View) -> list[Line]:
    """The table of an evaluation."""
    return [line(number) for number in view.numbers]


def line(shown: Number) -> Line:
    meaning, found = shown.meaning, shown.found
    bar = track(found) if meaning.share else None
    return Line(meaning.name, number(found["mean"]), interval(found), meaning.better, meaning.text, bar, shown.large)


def track(found: dict[str, Any]) -> dict[str, str]:
    low, high = (found["mean"] if found[end] is None else found[end] for end in ("low", "high"))
    return {"left": f"{100 * low:.1f}%", "width": f"{100 * (high - low):.1f}%", "mean": f"{100 * found['mean']:.1f}%"}


def sentence(summary: dict[str, Any], view: View, cases: int) -> str:
    """The result in one sentence."""
    found = summary["metrics"][view.headline]
    spread = "no interval, as there is one group only" if found["low"] is None else f"95 % interval {interval(found)}"
    over = f"{count(cases, 'case')} ({count(found['groups'], 'group')}){view.over}"
    how = f"{count(summary['members'], 'member')} and {count(summary['steps'], 'reverse step')}"
    how += " placed by the benefit of the image" if "timesteps" in summary else ""
    how += f" of each of {len(summary['folds'])} folds" if "folds" in summary else ""
    how += {"Auxiliary": ", by the auxiliary map alone", "Fused": ", fused with the auxiliary map"}.get(summary["readout"], "")
    return f"On {over} of the {summary['split']} split, with {how}, the mean {view.name} is {number(found['mean'])} ({spread})."
