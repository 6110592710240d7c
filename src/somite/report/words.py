"""What the numbers mean, in words: names, directions and formats that the report and the model card share."""

from dataclasses import dataclass
from typing import Any

NOTICE = "Research use only. Not a medical device."
LIMITS = (
    "The numbers hold for data like those it was evaluated on: the same scanner or microscope, population and annotation. "
    "Evaluate on your own before you rely on them.",
    "An interval covers the sampling of cases, not the choice of training seed, and says nothing of other sites.",
    "The probability is the model's opinion; how well it is calibrated is measured on the evaluation split alone.",
    "Spread between members shows what the model finds ambiguous. Errors that all members share do not show in it.",
)
HIGHER, LOWER = "higher is better", "lower is better"


@dataclass(frozen=True)
class Meaning:
    name: str
    better: str
    text: str
    share: bool = True  # it lies in [0, 1]


MEANINGS = {
    "dice": Meaning("Dice", HIGHER, "overlap of mask and truth: twice what they share, over the sum of their sizes"),
    "iou": Meaning("IoU", HIGHER, "overlap again: what they share over what either covers"),
    "nsd": Meaning("NSD at {tolerance}", HIGHER, "share of both surfaces that lies within {tolerance} of the other surface"),
    "hd95": Meaning("HD95 ({unit})", LOWER, "95th percentile of the distances between the surfaces, of the worse direction", share=False),
    "precision": Meaning("Precision", HIGHER, "share of the mask that is truly foreground"),
    "recall": Meaning("Recall", HIGHER, "share of the true foreground that the mask finds"),
    "brier": Meaning("Brier", LOWER, "mean squared error of the probability"),
    "nll": Meaning("NLL (nats)", LOWER, "mean negative log-likelihood, probabilities clipped at 1e-6", share=False),
    "ece": Meaning("ECE", LOWER, "gap between probability and observed share within one case; easy background dominates it"),
    "ece_foreground": Meaning(
        "ECE, foreground",
        LOWER,
        "the same where truth or mask is foreground; the truth chooses that region, so even a perfect model shows a gap",
    ),
    "ece_boundary": Meaning("ECE, boundary", LOWER, "the same within {boundary} px of the truth's edge, where calibration is hard"),
    "nqm": Meaning("NQM", "lower is surer", "spread of the members in proportion to what they segment; says nothing of error", share=False),
    "disagreement": Meaning("Disagreement", "lower is surer", "1 - mean Dice between pairs of members; says nothing of error"),
}
POOLED = {
    "ece_all": Meaning("ECE, pooled", LOWER, "gap between probability and observed share over the pixels of all cases together"),
    "ece_foreground": Meaning("ECE, foreground, pooled", LOWER, "the same in the foreground region (a perfect model shows a gap here too)"),
    "ece_boundary": Meaning("ECE, boundary, pooled", LOWER, "the same in the band around the truth's edge"),
    "mce_all": Meaning("MCE, pooled", LOWER, "the widest gap of any bin, over the pixels of all cases together"),
}
ORDER = list(MEANINGS)


@dataclass(frozen=True)
class Line:
    """One line of the table, ready to print."""

    name: str
    mean: str
    interval: str
    better: str
    text: str
    track: dict[str, str] | None  # where mean and interval lie on [0, 1], in per cent


def lines(summary: dict[str, Any]) -> list[Line]:
    """The table of an evaluation: means over cases, then what is pooled over pixels. One member has no spread to tell of."""
    known = {name: found for name, found in summary["metrics"].items() if summary["members"] > 1 or name != "nqm"}
    terms = {"tolerance": f"{summary['tolerance']:g} {summary['unit']}", "unit": summary["unit"], "boundary": summary["boundary"]}
    out = [line(MEANINGS.get(name, Meaning(name, "", "", False)), known[name], terms) for name in sorted(known, key=place)]
    return out + [line(meaning, summary["pooled"][name], terms) for name, meaning in POOLED.items() if name in summary["pooled"]]


def place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def line(meaning: Meaning, found: dict[str, Any], terms: dict[str, Any]) -> Line:
    name, text = (part.format(**terms) for part in (meaning.name, meaning.text))
    return Line(name, number(found["mean"]), interval(found), meaning.better, text, track(found) if meaning.share else None)


def track(found: dict[str, Any]) -> dict[str, str]:
    low, high = (found["mean"] if found[end] is None else found[end] for end in ("low", "high"))
    return {"left": f"{100 * low:.1f}%", "width": f"{100 * (high - low):.1f}%", "mean": f"{100 * found['mean']:.1f}%"}


def number(x: float | None, beside: float | None = None) -> str:
    """Three decimals, fewer for large numbers, significant digits for tiny ones; as many as the number it stands beside."""
    if x is None:
        return "-"
    like = abs(x if beside is None else beside)
    if 0 < like < 0.0005:
        return f"{x:.1e}"
    return f"{x:.0f}" if like >= 100 else f"{x:.1f}" if like >= 10 else f"{x:.3f}"


def interval(found: dict[str, Any]) -> str:
    """From where to where, or why there is none."""
    if found["low"] is None:
        return "none: one group"
    low, high = (number(found[end], found["mean"]) for end in ("low", "high"))
    return f"{low} to {high}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def size(n: int) -> str:
    """Bytes for people."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def sentence(summary: dict[str, Any], cases: int) -> str:
    """The result in one sentence."""
    dice, labels = summary["metrics"]["dice"], len(summary["by_label"])
    spread = "no interval, as there is one group only" if dice["low"] is None else f"95 % interval {interval(dice)}"
    over = f"{count(cases, 'case')} ({count(dice['groups'], 'group')})" + (f" and {labels} labels" if labels > 1 else "")
    how = f"{count(summary['members'], 'member')} and {count(summary['steps'], 'reverse step')}"
    how += " placed by the benefit of the image" if "timesteps" in summary else ""
    how += f" of each of {len(summary['folds'])} folds" if "folds" in summary else ""
    how += {"Auxiliary": ", by the auxiliary map alone", "Fused": ", fused with the auxiliary map"}.get(summary["readout"], "")
    return f"On {over} of the {summary['split']} split, with {how}, the mean Dice is {number(dice['mean'])} ({spread})."


def bin_rule(bins: int) -> str:
    return f"{bins} bins of equal width, closed on the right, (i/{bins}, (i+1)/{bins}]; a probability of 0 belongs to the first"


def empty_rule(text: str) -> str:
    """The rule without its heading."""
    rest = text.removeprefix("Empty masks: ")
    return rest[:1].upper() + rest[1:]
