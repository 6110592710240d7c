"""How much there is of each class, in each split."""

from collections.abc import Mapping, Sequence

from ..data.dataset import Data
from ..data.record import Case
from .case import Exam
from .finding import SHOWN, Finding
from .masks import Meaning, share_of

LEAST = 0.02  # share of the cases that have a class, or of all pixels that are marked, below which it is told of
PARTS = ("train", "val", "test")
HANGS = {"val": "which weights are kept, and any temperature or threshold", "test": "the scores and their intervals"}


def class_masks(exams: Sequence[Exam], data: Data, means: Meaning) -> dict[str, dict[str, float]]:
    """Of each class how much of the image it takes, on average, and how many cases have it."""
    masks = [one.mask for one in exams if one.mask is not None]
    if not masks:
        return {}
    classes = means.labels[1:] if means.labels and data.foreground is None else (None,)
    found = {}
    for value in classes:
        shares = [share_of(mask, data, value) for mask in masks]
        name = "foreground" if value is None else f"class {value}"
        found[name] = {
            "share": sum(shares) / len(shares),
            "lowest": min(shares),
            "highest": max(shares),
            "cases": sum(one > 0 for one in shares),
        }
    return found


def labelled(splits: Mapping[str, Sequence[Case]], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Cases of each class in each split."""
    return {
        split or "in no split": {name: sum(bool(case.labels and case.labels[k]) for case in cases) for k, name in enumerate(names)}
        for split, cases in splits.items()
        if names and any(case.labels for case in cases)
    }


def balance_findings(exams: Sequence[Exam], data: Data, means: Meaning, splits: Mapping[str, Sequence[Case]]) -> list[Finding]:
    findings = []
    known = {one.id: one.mask for one in exams if one.mask is not None}
    present = {value for mask in known.values() for value in mask.counts}
    for value in (means.labels or ())[1:] if data.foreground is None else data.foreground or ():
        if known and value not in present:
            findings.append(Finding("class-missing", f"no mask holds class {value}", "leave it out of the labels, or find its masks"))
        for split in PARTS:
            mine = [known[case.id] for case in splits.get(split, ()) if case.id in known]
            if mine and value in present and not any(value in mask.counts for mask in mine):
                findings.append(Finding("class-missing", f"class {value} is in no mask of {split}", "deal the splits out anew"))
    small = {name: found["share"] for name, found in class_masks(exams, data, means).items() if 0 < found["share"] < LEAST}
    if small:
        told = "; ".join(f"{name} {part:.2%}" for name, part in sorted(small.items(), key=lambda one: one[1])[:SHOWN])
        more = f" and {len(small) - SHOWN} more classes" if len(small) > SHOWN else ""
        text = f"few pixels are marked ({told}{more}): a network that marks nothing is right nearly everywhere"
        findings.append(Finding("imbalance", text, "a loss with a Dice part, and --data.foreground_rate 0.5 with --data.crop"))
    return [*findings, *few_findings(splits), *label_findings(labelled(splits, data.source.classes))]


def few_findings(splits: Mapping[str, Sequence[Case]]) -> list[Finding]:
    alone = [split for split in HANGS if len({case.group for case in splits.get(split, ())}) == 1]
    told = "; ".join(f"{HANGS[split]} hang on the one of {split}" for split in alone)
    mend = "bring more cases, or deal out more of them to it by splits.json"
    return [Finding("few-cases", f"a single patient (group): {told}", mend)] if alone else []


def label_findings(table: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    findings = []
    for split in PARTS:
        for name, n in table.get(split, {}).items():
            if n == 0:
                findings.append(
                    Finding("class-missing", f"no case of {split} has the label {name}", "deal the splits out anew, or leave it out")
                )
    train = table.get("train", {})
    total, least = sum(train.values()), min(train.values(), default=0)
    if least and 4 * least < max(train.values()):
        told = ", ".join(f"{name} {n:,} ({n / total:.0%})" for name, n in train.items())
        findings.append(
            Finding("imbalance", f"labels are unequally common in training: {told}", "look at scores of each class, not at accuracy")
        )
    return findings
