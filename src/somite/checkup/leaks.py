"""Images that stand twice in a set, above all in two splits: then what is tested was trained on."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..data.record import Case
from ..files import sha256
from ..wording import count
from .case import Exam
from .finding import SHOWN, Finding
from .likeness import pairs

MOST = 20_000  # images that are compared with each other
PREFIX = re.compile(r"[_\-. ]")
Home = Mapping[str, str]  # the split of each case


def leak_findings(exams: Sequence[Exam], cases: Mapping[str, Case], home: Home) -> list[Finding]:
    same = identical(exams, cases)
    return [*duplicates(same, exams, cases, home), *similar(exams, same, cases, home), *patients(cases, home)]


def identical(exams: Sequence[Exam], cases: Mapping[str, Case]) -> list[tuple[str, ...]]:
    """Groups of cases whose images are the same: by pixels where these were read, by files where some were not."""
    by: dict[object, list[str]] = defaultdict(list)
    for exam in exams:
        if exam.image is not None and exam.image.low < exam.image.high:
            by[exam.image.digest].append(exam.id)
    groups = [tuple(names) for names in by.values() if len(names) > 1]
    if all(exam.looked_at for exam in exams):
        return groups
    sizes: dict[object, list[str]] = defaultdict(list)
    for exam in exams:
        case = cases[exam.id]
        if not exam.flaws and case.packed is None:
            sizes[tuple(path.stat().st_size for path in case.files)].append(exam.id)
    files: dict[object, list[str]] = defaultdict(list)
    for name in (name for names in sizes.values() if len(names) > 1 for name in names):
        files[tuple(map(sha256, cases[name].files))].append(name)
    return sorted({*groups, *(tuple(names) for names in files.values() if len(names) > 1)})


def duplicates(same: Sequence[tuple[str, ...]], exams: Sequence[Exam], cases: Mapping[str, Case], home: Home) -> list[Finding]:
    findings = []
    across = [group for group in same if len(splits_of(group, home)) > 1]
    within = [group for group in same if len(splits_of(group, home)) < 2]
    if across:
        told = f"{count(len(across), 'image')} in more than one split: {shown(across, home)}"
        findings.append(Finding("duplicate-across-splits", told, "keep one of each, or all in one split", joined(across)))
    if within:
        told = f"{count(len(within), 'image')} more than once: {shown(within, home)}"
        findings.append(
            Finding("duplicate", told, "keep one of each: they count twice, and without lists of splits may be parted", joined(within))
        )
    marks = {exam.id: exam.mask.digest for exam in exams if exam.mask is not None}
    torn = [group for group in same if len({(marks.get(name), cases[name].labels) for name in group}) > 1]
    if torn:
        told = f"{count(len(torn), 'image')} with different masks or labels: {shown(torn, home)}"
        findings.append(Finding("contradiction", told, "keep the right one", joined(torn)))
    return findings


def similar(exams: Sequence[Exam], same: Sequence[tuple[str, ...]], cases: Mapping[str, Case], home: Home) -> list[Finding]:
    """Near copies that are no exact ones. Within one split those of one group, a patient or a video, are as they should be."""
    one_of = {name: group for group in same for name in group}
    found: list[tuple[str, str]] = []
    for dims in (2, 3):
        known = [(exam.id, exam.image.picture) for exam in exams if exam.image is not None and exam.image.picture is not None]
        mine = [(name, picture) for name, picture in known if picture.ndim == dims][:MOST]
        names = [name for name, _ in mine]
        found += [(names[i], names[j]) for i, j, _ in pairs([picture for _, picture in mine])]
    found = [(a, b) for a, b in found if a not in one_of or b not in one_of[a]]
    across = [pair for pair in found if len(splits_of(pair, home)) > 1]
    within = [pair for pair in found if len(splits_of(pair, home)) < 2 and cases[pair[0]].group != cases[pair[1]].group]
    findings = []
    if across:
        told = f"{count(len(joined(across)), 'image')} look the same as one of another split: {shown(across, home)}"
        mend = "if they are copies or frames of one video or patient, keep them in one split (groups.csv: id,group)"
        findings.append(Finding("similar-across-splits", told, mend, joined(across)))
    if within:
        sets = together(within)
        told = f"{count(len(joined(within)), 'image')} in {count(len(sets), 'set')} look the same within a split: {shown(sets, home)}"
        mend = "if they are frames of one video or slices of one patient, say so in groups.csv (id,group): intervals are by group"
        findings.append(Finding("similar", told, mend, joined(within)))
    return findings


def together(found: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Sets of cases that pairs connect, the largest first."""
    names = sorted(joined(found))
    at = {name: index for index, name in enumerate(names)}
    rows, columns = zip(*((at[a], at[b]) for a, b in found), strict=True)
    _, of = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names))), directed=False)
    sets: dict[int, list[str]] = defaultdict(list)
    for name, number in zip(names, of.tolist(), strict=True):
        sets[number].append(name)
    return sorted(map(tuple, sets.values()), key=len, reverse=True)


def patients(cases: Mapping[str, Case], home: Home) -> list[Finding]:
    """Names that begin alike, as of slices of one patient, where no group says so."""
    if any(case.group != case.id for case in cases.values()):
        return []
    prefix = first_parts(list(cases))
    groups: dict[str, list[str]] = defaultdict(list)
    for name, part in prefix.items():
        groups[part].append(name)
    several = {part: names for part, names in groups.items() if len(names) > 1}
    if len(several) < max(2, len(groups) / 5):
        return []
    across = [tuple(names) for names in several.values() if len(splits_of(names, home)) > 1]
    told = f"names begin alike ({len(groups):,} beginnings of {len(cases):,} names, as {next(iter(several))!r}), but no groups.csv says which cases are of one patient"
    findings = [Finding("no-patients", told, "if they are patients, write groups.csv (id,group): splits and intervals are then by patient")]
    if across:
        told = f"{count(len(across), 'beginning')} of names in two splits: {shown(across, home)}"
        findings.append(
            Finding("name-across-splits", told, "if these are patients, keep each in one split (groups.csv: id,group)", joined(across))
        )
    return findings


def first_parts(names: Sequence[str]) -> dict[str, str]:
    """Up to the first separator after which the beginnings differ; nothing where that is the whole name of all."""
    parts = {name: PREFIX.split(name) for name in names}
    for depth in range(1, max(map(len, parts.values()), default=0)):
        found = {name: "_".join(one[:depth]) for name, one in parts.items() if len(one) > depth}
        if len(set(found.values())) > 1:
            return found
    return {}


def splits_of(names: Sequence[str], home: Home) -> set[str]:
    return {home.get(name, "") for name in names} - {""}


def joined(groups: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def shown(groups: Sequence[tuple[str, ...]], home: Home) -> str:
    def named(name: str) -> str:
        return f"{name} ({home[name]})" if home.get(name) else name

    told = [
        "; ".join(" = ".join(named(name) for name in group[:SHOWN]) + (" ..." if len(group) > SHOWN else "") for group in groups[:SHOWN])
    ]
    return told[0] + (f"; and {len(groups) - SHOWN:,} more" if len(groups) > SHOWN else "")
