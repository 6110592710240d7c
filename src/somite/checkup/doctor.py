"""The whole check: what there is, every case looked at, what the set says as a whole, what a recipe would take."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import recipe as recipes
from ..data.record import Case
from ..errors import InputError
from ..files import write_json
from ..wording import count
from . import balance
from .case import Exam
from .estimate import recipe_findings
from .finding import LEVELS, Finding, about, ordered, table
from .gather import Gathered, gather
from .leaks import leak_findings
from .look import chosen, looked
from .machine import cores, machine, machine_findings
from .masks import Meaning, mask_findings, meaning, share_of
from .pictures import file_findings, image_findings

CLASSES = 12  # that are told of one by one
Progress = Callable[..., Iterable[Exam]]


@dataclass(frozen=True)
class Checkup:
    """What `somite doctor` found, the most important first. summary: what the set is, as JSON."""

    findings: list[Finding]
    summary: dict[str, Any] = field(repr=False)

    @property
    def good(self) -> bool:
        """Nothing forbids training."""
        return not any(one.level == "error" for one in self.findings)

    def of(self, kind: str) -> list[Finding]:
        return [one for one in self.findings if one.kind == kind]

    def write(self, path: str | Path) -> None:
        """As JSON, for machines."""
        levels = {level: sum(one.level == level for one in self.findings) for level in LEVELS}
        write_json(path, {"good": self.good, "count": levels, "summary": self.summary, "findings": [one.plain for one in self.findings]})

    def __str__(self) -> str:
        return f"{in_short(self.summary)}\n\n{table(self.findings)}"


def doctor(
    root: str | Path,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    quick: bool = False,
    full: bool = False,
    workers: int | None = None,
    progress: Progress = lambda exams, what, total: exams,
) -> Checkup:
    """Check a data set, and where a recipe is named what training it would take here.

    root: as `--data.root`. overrides: options as of `somite train`; without a recipe those of --data. quick: pixels of a sample alone; full: of all
    files, however large. workers: processes (default: as many as there are cores). Raises InputError where there are no data to look at.
    """
    if quick and full:
        raise InputError("--quick looks at a sample and --full at everything: give one of them")
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: at least 1 process looks at the files")
    told = [f"--data.root={root}", *overrides]
    config = None if recipe is None else recipes.parse(recipes.path_of(str(recipe)), told)
    built, refused = opened(config)
    data = recipes.parse_data(told) if built is None else built.data
    found = gather(data, None if built is None else built.task.needs)
    cases = {case.id: case for case in found.cases}
    pixels = chosen(list(cases.values()), quick, full)
    folder = (data.path.parent if data.path.is_file() else data.path) / "raters"
    seen = looked(list(cases.values()), pixels, folder if folder.is_dir() else None, workers or min(cores(), 8))
    exams = sorted(progress(seen, "looking at cases", len(cases)), key=lambda one: one.id)
    means = meaning(found.data, exams)
    findings = [
        *found.findings,
        *refused,
        *file_findings(exams),
        *mask_findings(found.data, exams, cases, means),
        *leak_findings(exams, cases, found.home),
        *image_findings(exams, found.data),
        *balance.balance_findings(exams, found.data, means, found.splits),
        *unseen(exams),
        *(machine_findings(machine()) if built is None else []),
    ]
    summary = summarised(root, found, exams, means)
    if built is not None and found.data.needs == built.task.needs:
        built.data = found.data
        bad = {name for one in findings if one.level == "error" for name in one.where}
        more, taken = recipe_findings(built, marked(found, exams, bad))
        findings += more
        summary["estimate"] = None if taken is None else vars(taken)
    return Checkup(ordered(findings), summary)


def opened(config: Any) -> tuple[recipes.Recipe | None, list[Finding]]:  # noqa: ANN401 - jsonargparse's namespace
    """The recipe as training would build it. Where it cannot be built that is a finding, and the data are looked at without it."""
    if config is None:
        return None, []
    try:
        return recipes.build(recipes.settled(config, Path())), []
    except InputError as error:
        return None, [Finding("recipe", str(error))]


def marked(found: Gathered, exams: Sequence[Exam], bad: set[str]) -> list[Case]:
    """Training cases without a flaw that have some foreground, where masks are asked for."""
    good = {one.id for one in exams if not one.flaws and (one.mask is None or share_of(one.mask, found.data) > 0)} - bad
    return [case for case in found.splits.get("train", ()) if case.id in good]


def unseen(exams: Sequence[Exam]) -> list[Finding]:
    names = [one.id for one in exams if not one.looked_at]
    told = (
        f"to save time headers alone were read of these, of {len(exams):,} cases: values, brightness and likeness are those of the others"
    )
    return about("not-looked-at", names, "case", told, "--full looks at all of them")


def summarised(root: str | Path, found: Gathered, exams: Sequence[Exam], means: Meaning) -> dict[str, Any]:
    shapes = [one.shape for one in exams if one.shape is not None]
    spacings = [one.spacing for one in exams if one.spacing is not None]
    return {
        "root": str(root),
        "needs": sorted(found.data.needs),
        "cases": len(exams),
        "groups": len({case.group for case in found.cases}),
        "masks": sum(case.mask is not None for case in found.cases),
        "splits": {name: len(cases) for name, cases in found.splits.items() if cases},
        "own_splits": bool(found.data.source.splits),
        "sizes": None
        if len({len(one) for one in shapes}) != 1
        else {"median": np.median(shapes, 0).tolist(), "distinct": len(set(shapes))},
        "spacing_mm": np.median(spacings, 0).round(4).tolist() if spacings else None,
        "labels": None if means.labels is None else list(means.labels),
        "classes": balance.class_masks(exams, found.data, means),
        "labelled": balance.labelled(found.splits, found.data.source.classes),
    }


def in_short(summary: dict[str, Any]) -> str:
    """What the set is, in a few lines."""
    lines = [
        f"{summary['root']}: {count(summary['cases'], 'case')} of {count(summary['groups'], 'group')}, {count(summary['masks'], 'mask')}"
    ]
    splits = ", ".join(f"{name or 'in none'} {n:,}" for name, n in summary["splits"].items())
    lines.append(f"splits: {splits} ({'its own lists' if summary['own_splits'] else 'dealt out by hash of the group'})")
    if summary["sizes"]:
        size = " x ".join(f"{n:g}" for n in summary["sizes"]["median"])
        spacing = f", spacing {' x '.join(f'{n:g}' for n in summary['spacing_mm'])} mm" if summary["spacing_mm"] else ""
        lines.append(f"median size: {size}{spacing}")
    for name, one in list(summary["classes"].items())[:CLASSES]:
        lines.append(
            f"{name}: {one['share']:.2%} of the image on average ({one['lowest']:.2%} to {one['highest']:.2%}), in {one['cases']:,} masks"
        )
    if len(summary["classes"]) > CLASSES:
        lines.append(f"and {len(summary['classes']) - CLASSES} more classes")
    for split, table_ in summary["labelled"].items():
        lines.append(f"labels, {split}: " + ", ".join(f"{name} {n:,}" for name, n in table_.items()))
    return "\n".join(lines)
