"""What there is to look at: the cases, what a task would need of them, and the splits as training would make them."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ..data import nnunet
from ..data.dataset import Data
from ..data.labelled import TABLE
from ..data.listing import FlawError
from ..data.record import Case
from ..errors import InputError
from ..files import read_json
from .finding import KINDS, Finding, some

MENDS = {
    "image-without-mask": 'add the masks, remove the images, or leave them out by splits.json ("excluded": {id: why})',
    "mask-without-image": "add the images, or remove the masks",
    "group-in-two-splits": "keep a group (a patient, a video) in one split",
    "case-in-two-splits": "keep a case in one split",
}
NAMED = 40  # findings of one kind; further ones are put together


@dataclass
class Gathered:
    """data: of which only what is usable is left. splits: as training makes them; a case that none has is under "" ."""

    data: Data
    splits: dict[str, list[Case]]
    findings: list[Finding] = field(default_factory=list)

    @property
    def home(self) -> dict[str, str]:
        """The split of each case."""
        return {case.id: name for name, cases in self.splits.items() for case in cases}

    @property
    def cases(self) -> list[Case]:
        return [case for cases in self.splits.values() for case in cases]


def gather(data: Data, needs: Collection[str] | None) -> Gathered:
    """needs: what a recipe's task wants of a case; None: whatever the data have. Raises InputError where there are no data."""
    root = data.path
    ways = [needs, {"image"}] if needs is not None else ways_of(root)
    flaws: list[FlawError] = []
    findings: list[Finding] = []
    refusals: list[InputError] = []
    for way in ways:
        flaws.clear()
        try:
            usable = data.needing(way).usable(flaws.append)
            break
        except InputError as error:
            refusals.append(error)
    else:
        raise refusals[0]
    if refusals and needs is not None:
        findings.append(Finding("listing", str(refusals[0]), "training needs it; what follows is about the images alone"))
    elif refusals and (root / TABLE).is_file() and "labels" not in usable.needs:
        findings.append(Finding("labels", str(refusals[-1] if "mask" not in usable.needs else refusals[0])))
    splits = splits_of(usable, findings)
    told = told_of(flaws) + findings + left_out(root, usable)
    return Gathered(usable, splits, told)


def ways_of(root: Path) -> list[set[str]]:
    """What cases may have, the richest first."""
    both = [{"image", "mask", "labels"}] if root.is_dir() and (root / TABLE).is_file() else []
    return [*both, {"image", "mask"}, {"image", "labels"}, {"image"}]


def splits_of(data: Data, findings: list[Finding]) -> dict[str, list[Case]]:
    try:
        found = data.find() if data.fold is None else data.folded(data.find(), data.fold)
        splits = data.joined(found)
    except InputError as error:
        findings.append(Finding("splits", str(error)))
        splits = {}
    inside = {case.id for cases in splits.values() for case in cases}
    rest = [case for case in data.source.all if case.id not in inside]
    if rest and splits and data.source.splits:
        names = tuple(case.id for case in rest if case in data.enough([case]))
        if names:
            findings.append(
                Finding(
                    "no-split-case",
                    f"{len(names)} cases are in no split, and neither trained on nor tested: {some(names)}",
                    "list them in splits.json",
                    names,
                )
            )
    return {**splits, "": rest}


def told_of(flaws: list[FlawError]) -> list[Finding]:
    """One finding a flaw; of very many of a kind, one for all."""
    flaws = list({(flaw.kind, flaw.named or str(flaw)): flaw for flaw in reversed(flaws)}.values())[
        ::-1
    ]  # a table of labels has its groups and splits looked at again
    findings = []
    for kind in dict.fromkeys(flaw.kind for flaw in flaws):
        mine = [flaw for flaw in flaws if flaw.kind == kind]
        known, mend = kind if kind in KINDS else "listing", MENDS.get(kind, "")
        if len(mine) == 1 and len(mine[0].named) > 1 and mend:
            findings.append(
                Finding(known, f"{len(mine[0].named)} times: {some([Path(one).name for one in mine[0].named])}", mend, mine[0].named)
            )
        elif len(mine) <= NAMED:
            findings += [Finding(known, str(flaw), "", flaw.named) for flaw in mine]
        else:
            names = tuple(name for flaw in mine for name in flaw.named)
            findings.append(Finding(known, f"{len(mine):,} times; the first: {mine[0]}", mend, names))
    return findings


def left_out(root: Path, data: Data) -> list[Finding]:
    """What splits.json leaves out, with its reasons."""
    if not data.source.excluded:
        return []
    path = root / "splits.json"
    reasons = read_json(path).get("excluded", {}) if path.is_file() else {}
    names = sorted(data.source.excluded)
    told = [f"{name} ({reasons[name]})" if isinstance(reasons, dict) and reasons.get(name) else name for name in names]
    return [Finding("excluded", f"splits.json leaves {len(names)} out: {some(told)}", "", tuple(names))]


def declared(root: Path) -> tuple[int, ...] | None:
    """The mask values that an nnU-Net dataset.json names, either version's way; None where it does not."""
    if not (root.is_dir() and nnunet.is_raw(root)):
        return None
    labels = json.loads((root / "dataset.json").read_text(encoding="utf-8")).get("labels", {})
    values = [value if isinstance(value, int) else key for key, value in labels.items()] if isinstance(labels, dict) else []
    whole = [int(value) for value in values if str(value).isdigit()]
    return tuple(sorted({0, *whole})) if len(whole) == len(values) and whole else None
