"""What the masks of a set hold: values without a meaning, nothing or everything marked, classes that are rare or missing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.dataset import Data
from ..data.record import Case, classes_of
from ..errors import InputError
from ..wording import count
from .case import Exam, MaskFacts
from .finding import Finding, about, some
from .gather import declared

LOSSY = (".jpg", ".jpeg")
MOSTLY = 0.9  # of masks that can be read as binary, from which on the others are odd
RARE = 0.01  # of masks that hold a value, below which it may be a slip
MANY = 50  # masks from which on a rare value is told of
LARGE = 0.9  # of the image
OFTEN = 0.1  # of masks
STILL = 0.03  # standard deviation of the centre of what is marked, of the image's sides
APART = 0.3  # between the shares of masks that two raters marked anything in


@dataclass(frozen=True)
class Meaning:
    """How mask values are read. labels: background first, None for binary masks. given: said by the recipe, options or dataset.json."""

    labels: tuple[int, ...] | None
    given: bool


def meaning(data: Data, exams: Sequence[Exam]) -> Meaning:
    """As the recipe has it, or dataset.json, or as most of the masks are."""
    given = data.values or declared(data.path)
    if given or data.mask_threshold is not None or data.foreground is not None:
        return Meaning(given, True)
    masks = [one.mask for one in exams if one.mask is not None]
    binary = [one for one in masks if not refusal(one, None, None)]
    hard = [one for one in masks if not one.soft]
    if len(binary) >= MOSTLY * len(masks) or len(hard) < MOSTLY * len(masks):
        return Meaning(None, False)
    values = sorted({0}.union(*(one.counts for one in hard)))
    return Meaning(tuple(values) if len(values) <= 256 else None, False)


def refusal(mask: MaskFacts, labels: Sequence[int] | None, threshold: int | None, path: Path = Path()) -> str | None:
    """What training would say of these values; None where it takes them."""
    try:
        classes_of(np.array(sorted(mask.counts), dtype=np.int32), labels, threshold, path)
    except InputError as error:
        return str(error)
    return None


def mask_findings(data: Data, exams: Sequence[Exam], cases: dict[str, Case], means: Meaning) -> list[Finding]:
    known = [(one.id, one.mask) for one in exams if one.mask is not None]
    return [
        *values(data, known, cases, means),
        *amounts(data, known),
        *rare(known, means),
        *places(known),
        *raters(exams),
    ]


def values(data: Data, known: list[tuple[str, MaskFacts]], cases: dict[str, Case], means: Meaning) -> list[Finding]:
    refused = (
        {}
        if data.foreground is not None
        else {name: said for name, mask in known if (said := refusal(mask, means.labels, data.mask_threshold, cases[name].mask or Path()))}
    )
    soft = [name for name, mask in known if name in refused and mask.soft]
    odd = [name for name in refused if name not in soft]
    lossy = [name for name, _ in known if (path := cases[name].mask) and path.suffix.lower() in LOSSY and name not in soft]
    findings = about(
        "soft-mask",
        soft,
        "mask",
        "grey edges, of smoothing, resizing or JPEG, where a mask has classes alone",
        "save them as PNG, resized by nearest neighbour; or --data.mask_threshold 128",
    )
    if odd:
        findings += [
            Finding(
                "mask-values", f"{count(len(odd), 'mask')} with values without a meaning ({some(odd)}): {refused[odd[0]]}", "", tuple(odd)
            )
        ]
    findings += about("lossy-mask", lossy, "mask", "masks are stored as JPEG, which changes values near edges", "save masks as PNG")
    if means.labels and not means.given:
        shown = ",".join(map(str, means.labels))
        findings.append(Finding("classes", f"masks hold {len(means.labels)} classes: {shown}", f"train with --data.labels [{shown}]"))
    if means.labels is None and data.foreground is None and data.mask_threshold is None:
        often = Counter(value for name, mask in known if name not in refused for value in mask.counts if value)
        if len(often) > 1:
            told = ", ".join(f"{value} in {n}" for value, n in often.most_common(8))
            findings.append(
                Finding(
                    "foreground-values",
                    f"what is marked is stored by different values in different masks ({told})",
                    "if these are classes, give --data.labels; else save all masks alike",
                    tuple(name for name, mask in known if often.most_common(1)[0][0] not in mask.counts and max(mask.counts) > 0),
                )
            )
    return findings


def amounts(data: Data, known: list[tuple[str, MaskFacts]]) -> list[Finding]:
    share = {name: share_of(mask, data) for name, mask in known}
    empty = [name for name, part in share.items() if part == 0]
    full = [name for name, part in share.items() if part == 1]
    large = [name for name, part in share.items() if LARGE <= part < 1]
    flat = [name for name, mask in known if mask.touches and 0 < share[name] < 1]
    findings = []
    if known and len(empty) == len(known):
        findings.append(Finding("no-foreground", "no mask has any foreground", "check that these are the right files", tuple(empty)))
    elif empty:
        part = f"{len(empty) / len(known):.0%} of the masks mark nothing"
        findings += about("empty-mask", empty, "mask", part, "fine if nothing is there to be marked; Dice of an empty mask is 0 or 1")
    findings += about("full-mask", full, "mask", "the whole image is marked", "look at them: inverted, or a default value?")
    findings += about("large-mask", large, "mask", f"{LARGE:.0%} of the image or more is marked", "look at them: inverted?")
    if len(flat) > OFTEN * len(known):
        findings += about(
            "cut-off",
            flat,
            "mask",
            f"in {len(flat) / len(known):.0%} of the masks what is marked reaches the border of the image, and may be cut off",
        )
    return findings


def share_of(mask: MaskFacts, data: Data, value: int | None = None) -> float:
    """Of the image's pixels: of one class, or of all that is foreground as the data have it."""
    inside, least = data.foreground, data.mask_threshold or 1
    wanted = {one for one in mask.counts if (one == value if value is not None else one in inside if inside is not None else one >= least)}
    return sum(mask.counts[one] for one in wanted) / sum(mask.counts.values())


def rare(known: list[tuple[str, MaskFacts]], means: Meaning) -> list[Finding]:
    if means.labels is None or len(known) < MANY:
        return []
    holding = {value: [name for name, mask in known if value in mask.counts] for value in means.labels[1:]}
    few = {value: names for value, names in holding.items() if 0 < len(names) <= max(1, RARE * len(known))}
    return [
        Finding(
            "rare-value",
            f"value {value} is in {count(len(names), 'mask')} of {len(known)} alone: {some(names)}",
            "a rare class, or a slip?",
            tuple(names),
        )
        for value, names in few.items()
    ]


def places(known: list[tuple[str, MaskFacts]]) -> list[Finding]:
    centres = [mask.centre for _, mask in known if mask.centre is not None]
    if len(centres) < MANY or len({len(one) for one in centres}) > 1:
        return []
    spread = np.array(centres).std(0)
    if spread.max() > STILL:
        return []
    told = f"what is marked lies at the same place in all images (its centre varies by {spread.max():.1%} of the side)"
    return [
        Finding(
            "centred",
            told,
            "a network can learn the place in place of the look: crop at random, and do not expect it to find things elsewhere",
        )
    ]


def raters(exams: Sequence[Exam]) -> list[Finding]:
    marked = [one.marked for one in exams if one.marked is not None]
    if len(marked) < MANY or len({len(one) for one in marked}) > 1:
        return []
    share = np.array(marked).mean(0)
    if np.ptp(share) < APART:
        return []
    told = ", ".join(f"{part:.2f}" for part in share)
    return [
        Finding(
            "rater-order",
            f"raters mark anything in {told} of the images: their numbers are hardly persons",
            "draw raters at random (--data.raters does)",
        )
    ]
