"""What the doctor finds, and how grave it is."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..wording import count

Level = Literal["error", "warning", "note"]
LEVELS: dict[Level, str] = {
    "error": "training would stop, or its scores would be wrong",
    "warning": "probably not meant: look at it before training",
    "note": "good to know",
}
SHOWN = 5  # of many files that a finding names; all of them stand in the JSON

# Every kind of finding, the most important first within its level. The documentation explains each.
ERRORS = (
    *("listing", "no-image", "no-mask", "image-without-mask", "mask-without-image", "two-masks", "same-name", "bad-id", "missing-channel"),
    *("unreadable", "killed", "not-finite", "mask-unreadable", "mask-mismatch", "mask-values", "soft-mask"),
    *("duplicate-across-splits", "group-in-two-splits", "case-in-two-splits", "two-groups", "no-group", "unknown-id", "no-split", "splits"),
    *("label-without-image", "image-without-label", "no-foreground", "channels", "recipe", "memory", "shared-memory", "disk"),
)
WARNINGS = (
    *(
        "similar-across-splits",
        "name-across-splits",
        "contradiction",
        "raters",
        "lossy-mask",
        "full-mask",
        "rare-value",
        "foreground-values",
    ),
    *("class-missing", "few-cases", "constant", "little-shared-memory", "mixed-depth", "orientation", "spacing", "scale"),
)
NOTES = (
    *("labels", "classes", "duplicate", "similar", "no-patients", "empty-mask", "large-mask", "cut-off", "centred", "rater-order"),
    *(
        "sizes",
        "mixed-channels",
        "imbalance",
        "dark",
        "own-range",
        "frame",
        "jpeg",
        "excluded",
        "no-split-case",
        "not-looked-at",
        "estimate",
    ),
)
KINDS: dict[str, Level] = {
    **dict.fromkeys(ERRORS, "error"),
    **dict.fromkeys(WARNINGS, "warning"),
    **dict.fromkeys(NOTES, "note"),
}


@dataclass(frozen=True)
class Finding:
    """text: what is the matter; mend: what to do; where: the files or cases that it is true of."""

    kind: str
    text: str
    mend: str = ""
    where: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        return KINDS[self.kind]

    @property
    def told(self) -> str:
        """For people, on one line or two."""
        return f"{self.text}{f'. Mend: {self.mend}' if self.mend else ''}  [{self.kind}]"

    @property
    def plain(self) -> dict[str, Any]:
        return {"level": self.level, **asdict(self), "where": list(self.where)}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The most important first; of one kind that which is true of most."""
    rank = list(KINDS)
    return sorted(findings, key=lambda one: (rank.index(one.kind), -len(one.where), one.text))


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def about(kind: str, cases: Sequence[str], noun: str, text: str, mend: str = "") -> list[Finding]:
    """One finding about all these cases, or none: `TEXT (12 masks: a, b ...)`."""
    return [Finding(kind, f"{text} ({count(len(cases), noun)}: {some(cases)})", mend, tuple(cases))] if cases else []


def table(findings: Sequence[Finding]) -> str:
    """All findings for people, by level."""
    parts = []
    for level, meaning in LEVELS.items():
        mine = [one for one in findings if one.level == level]
        if mine:
            told = [f"{number:3}. {one.told}" for number, one in enumerate(mine, start=1)]
            parts.append("\n".join([f"{count(len(mine), level)} ({meaning}):", *told]))
    return "\n\n".join(parts) or "nothing to mend"
