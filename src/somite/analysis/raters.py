"""Do the members of an ensemble differ as raters do? A run's samples against the masks of several raters.

Each case is sampled once; its first 1, 4, 8 ... members are compared with the set of its raters' masks. Two answers that
never vary stand beside the run for reference: the mask in masks/ (as a rule the raters' majority), and no mask at all,
which scores wherever raters saw nothing either. GED falls with the number of members for any sampler that varies, a bad one
too (see `metrics.raters.ged`): compare runs at equal numbers.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..data.digest import digest
from ..data.raters import folder_of, raters_of
from ..data.record import Case
from ..environment import environment
from ..errors import InputError
from ..evaluation import fingerprint, write_rows
from ..files import write_json
from ..metrics import raters as metric
from ..metrics.intervals import as_json, interval
from ..metrics.overlap import overlap
from ..parts import Parts
from ..pipeline import Run
from ..predict.fusion import votes
from ..tasks.task import Row
from . import figures
from .calibration import fusion_of

KEYS = ("case", "group", "source", "members")
RUN, MAJORITY, EMPTY = "run", "majority", "empty"  # sources
PANELS = {"ged": "GED squared (lower is better)", "hm_iou": "HM-IoU (higher is better)"}
RULE = "The IoU and Dice of two empty masks are 1, of an empty mask and another 0. No case is left out of a mean."


def analyse_raters(
    run: Run,
    out: Path,
    split: str = "test",
    members: Sequence[int] = (1, 4, 8, 16),
    limit: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Path]:
    """Writes raters.csv (a row for each case, source and number of members), table.csv and summary.json (means with 95 %
    intervals by patient), raters.svg and raters.png. limit: the first so many cases of the split. Stopped on the way, it goes
    on from the cases that are done.
    """
    if not members or min(members) < 1 or (limit is not None and limit < 1):
        raise InputError(f"--members {list(members)} and --limit {limit}: all must be at least 1")
    data, counts = run.recipe.data, sorted(set(members))
    if data.labels is not None:
        raise InputError(f"{run.path} segments several classes, but raters' masks are binary; give a run of a binary task")
    cases, folder = data.cases(split)[:limit], folder_of(data.path)
    run = run.at(members=counts[-1])
    marks = [mark for mark in sorted(folder.iterdir()) if mark.is_file()]
    about = {**fingerprint(run), "members": counts, "raters": [(mark.name, mark.stat().st_size) for mark in marks]}
    parts = Parts(out / "raters.parts", about)
    rows = [row for case in progress(cases) for row in parts.get(digest([case]), lambda case=case: list(scored(run, case, folder, counts)))]
    table = averaged(rows)
    paths = {"rows": out / "raters.csv", "table": out / "table.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], rows)
    write_rows(paths["table"], [{key: "" if value is None else value for key, value in row.items()} for row in table])
    about = {"run": run.path.name, "split": split, "seed": run.sampling.seed, "limit": limit, "steps": run.method.steps, "empty_rule": RULE}
    write_json(paths["summary"], {**about, "table": table, "data": {"digest": digest(cases)}, "environment": environment()})
    paths["svg"], paths["png"] = figures.save(figure(table), out, "raters")
    parts.clear()
    return paths


def scored(run: Run, case: Case, folder: Path, counts: Sequence[int]) -> Iterable[Row]:
    """The rows of one case: the run by number of members, fused as its recipe says, then the two references."""
    result = run.answer(case, keep=True)
    raters, truth = raters_of(case, folder), result.record.truth > 0
    drawn, fusion = votes(result.drawn)[:, 0], fusion_of(run)
    answers = [(RUN, count, drawn[:count], result.first(count, fusion).mask > 0) for count in counts]
    answers += [(MAJORITY, 1, truth[None], truth), (EMPTY, 1, np.zeros_like(truth)[None], np.zeros_like(truth))]
    for source, count, masks, fused in answers:
        yield {
            "case": case.id,
            "group": case.group,
            "source": source,
            "members": count,
            "ged": metric.ged(masks, raters),
            "hm_iou": metric.matched_iou(masks, raters),
            **metric.collective_insight(masks, raters),
            "diversity": metric.diversity(masks),
            "rater_diversity": metric.diversity(raters),
            "majority_dice": overlap(fused, truth)["dice"],
        }


def averaged(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each source, number of members and metric: the mean over cases and its interval by group."""
    out = []
    for source, count in dict.fromkeys((row["source"], row["members"]) for row in rows):
        here = [row for row in rows if (row["source"], row["members"]) == (source, count)]
        groups = [row["group"] for row in here]
        for name in (key for key in here[0] if key not in KEYS):
            found = interval([row[name] for row in here], groups)
            out.append({"source": source, "members": count, "metric": name, **as_json(found)})
    return out


@figures.styled
def figure(table: Sequence[Row]) -> Figure:
    """GED and HM-IoU against the number of members with bands; lines for the references."""
    made = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (name, label) in zip(made.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        here = {source: [r for r in table if (r["source"], r["metric"]) == (source, name)] for source in (RUN, MAJORITY, EMPTY)}
        counts, means = ([row[key] for row in here[RUN]] for key in ("members", "mean"))
        axes.plot(counts, means, color=figures.COLOURS[0], marker="o", label="samples of the run")
        if here[RUN][0]["low"] is not None:
            low, high = ([row[key] for row in here[RUN]] for key in ("low", "high"))
            axes.fill_between(counts, low, high, color=figures.COLOURS[0], alpha=0.15, linewidth=0)
        for source, words, dash in ((MAJORITY, "the mask in masks/ alone", (0, (5, 2))), (EMPTY, "no mask at all", (0, (1, 1)))):
            axes.axhline(here[source][0]["mean"], color=figures.GREY, linestyle=dash, linewidth=1.2, label=words)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set(xlabel="members", ylabel=label, ylim=(0, None))
    made.axes[-1].legend(loc="lower right")
    return made
