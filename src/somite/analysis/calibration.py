"""Are diffusion ensembles better calibrated than their feed-forward twins, and still so once those are temperature-scaled?

Every run segments the same cases. Its first 1, 2, 5, 10 ... members are fused, as they are and at a temperature fitted on the
validation cases for just that number of members, and each is scored by the pooled calibration error of all pixels, of the
foreground and of the band along the truth's border, by the mean over images, and by Brier and log score, each within the region
(an image without a pixel there counts as 0, as everywhere). `evaluations` is what a prediction costs (members times reverse
steps), so runs can be compared at equal cost; `votes` is the error of the members' vote shares over all pixels, and `floor` what a
perfect sampler with as many members would show there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..data.digest import digest
from ..data.record import Case, Record
from ..errors import InputError
from ..evaluation import Row, fingerprint, write_rows
from ..metrics import calibration as metric
from ..metrics.intervals import interval, pooled_interval
from ..parts import Parts, clear
from ..pipeline import Run
from ..predict.fusion import Fusion, votes
from ..predict.temperature import fit, scaled
from ..tasks.segmentation import Segmentation
from . import figures

BINS, BOUNDARY = 15, 3
REGIONS = ("all", "foreground", "boundary")
Progress = Callable[[Iterable], Iterable]


@dataclass
class Fused:
    """One case: probabilities (k, *s) by number of members, and what they are compared with."""

    record: Record
    probability: dict[int, np.ndarray]
    votes: np.ndarray  # (m, *s) the members' foreground


def analyse_calibration(
    runs: Sequence[Run], out: Path, split: str = "test", members: Sequence[int] = (1, 2, 5, 10), progress: Progress = iter
) -> dict[str, Path]:
    """Writes calibration.csv (a row for each run, number of members, scaling and region), calibration.svg and .png.

    split: without a validation case of any run, since temperatures are fitted on those.
    """
    if not members or min(members) < 1:
        raise InputError(f"--members {list(members)}: an ensemble has at least one member")
    for run in runs:
        fitting = {case.id for case in run.recipe.data.cases("val")}
        both = [case.id for case in run.recipe.data.cases(split) if case.id in fitting]
        if both:
            raise InputError(f"--split {split} holds {both[0]}, a validation case, on which {run.path} fits its temperature; take test")
    if len({digest(run.recipe.data.cases(split)) for run in runs}) > 1:
        raise InputError(f"the runs were not made for the same {split} cases; give runs of one data set and one split")
    counts = sorted(set(members))
    rows = [row for i, run in enumerate(runs) for row in of_run(run, split, counts, progress, out / f"run{i}.parts")]
    write_rows(out / "calibration.csv", rows)
    svg, png = figures.save(figure(rows), out, "calibration")
    clear(out, "run*.parts")
    return {"rows": out / "calibration.csv", "svg": svg, "png": png}


def of_run(run: Run, split: str, members: Sequence[int], progress: Progress, kept: Path) -> Iterable[Row]:
    """Answers are kept in the folder `kept` until all is done, so that a stop loses none."""
    run = run.at(members=members[-1])
    fitting, testing = (fused(run, name, members, progress, kept) for name in ("val", split))
    histogram = np.sum([metric.vote_histogram(case.votes) for case in testing], 0) if members[-1] > 1 else None
    for count in members:
        temperature = fit([(case.probability[count], case.record.truth) for case in fitting])
        floor = metric.sampler_floor(*metric.fit_beta(histogram), count) if histogram is not None else float("nan")
        for scaling, t in (("raw", 1.0), ("temperature", temperature)):
            told = {
                "run": run.path.name,
                "method": type(run.method).__name__,
                "members": count,
                "evaluations": count * run.method.steps,
                "scaling": scaling,
                "temperature": t,
            }
            whole = {"floor": floor, "votes": vote_error(testing, count)}
            yield from (told | scores | (whole if scores["region"] == "all" else {}) for scores in scored(testing, count, t))


def vote_error(cases: Sequence[Fused], count: int) -> float:
    """The calibration error of the first `count` members' vote shares, which is what `floor` is the floor of."""
    return metric.vote_ece(*np.sum([metric.vote_counts(case.votes[:count], case.record.truth > 0) for case in cases], axis=0))


def fused(run: Run, split: str, members: Sequence[int], progress: Progress, kept: Path) -> list[Fused]:
    data, cases = run.recipe.data, run.recipe.data.cases(split)
    parts = Parts(kept / split, {**fingerprint(run), "members": list(members)})
    out = []
    for case in progress(cases):
        found = parts.arrays(digest([case]), lambda case=case: answered(run, case, members))
        out.append(Fused(data.read(case), {count: found[f"first-{count}"] for count in members}, found["votes"]))
    return out


def answered(run: Run, case: Case, members: Sequence[int]) -> dict[str, np.ndarray]:
    """The fused probability of the first members, by their number, and each member's foreground."""
    result, fusion = run.answer(case, keep=True), fusion_of(run)
    drawn = votes(result.drawn)
    labels = drawn[:, 0] if drawn.shape[1] == 1 else ~drawn[:, 0]
    return {"votes": labels, **{f"first-{count}": result.first(count, fusion).probability for count in members}}


def fusion_of(run: Run) -> Fusion:
    """How the run's recipe fuses members. Raises InputError for runs that segment nothing."""
    if not isinstance(run.recipe.task, Segmentation):
        raise InputError(f"{run.path} is no segmentation, and has no ensemble of masks to analyse")
    return run.recipe.task.fusion


def scored(cases: Sequence[Fused], members: int, temperature: float) -> Iterable[dict[str, Any]]:
    """Foreground against background; several classes are taken together."""
    groups = [case.record.group for case in cases]
    counted: dict[str, list[metric.Bins]] = {region: [] for region in REGIONS}
    proper: dict[str, dict[str, list[float]]] = {region: {"brier": [], "nll": []} for region in REGIONS}
    for case in cases:
        p = case.probability[members] if temperature == 1 else scaled(case.probability[members], temperature)
        p, y = (p[0] if len(p) == 1 else 1 - p[0]).clip(0, 1), case.record.truth > 0
        regions = {"all": np.ones_like(y), "foreground": metric.foreground(p, y), "boundary": metric.boundary_band(y, BOUNDARY)}
        for region, where in regions.items():
            counted[region].append(metric.bins(p[where], y[where], BINS))
            for name, score in (("brier", metric.brier), ("nll", metric.nll)):
                proper[region][name].append(score(p[where], y[where]) if where.any() else 0.0)
    for region, bins in counted.items():
        pooled = pooled_interval(np.stack([b.array() for b in bins]), groups, lambda total: metric.ece(metric.Bins(*total)))
        image = interval([metric.ece(b) for b in bins], groups)
        yield {
            "region": region,
            "ece": pooled.mean,
            "ece_low": pooled.low,
            "ece_high": pooled.high,
            "ece_image": image.mean,
            "ece_image_low": image.low,
            "ece_image_high": image.high,
            **{name: float(np.mean(values)) for name, values in proper[region].items()},
        }


@figures.styled
def figure(rows: Sequence[Row]) -> Figure:
    """Pooled ECE against the cost of a prediction, a panel for each region."""
    made = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, region in zip(made.subplots(1, len(REGIONS)), REGIONS, strict=True):
        for index, run in enumerate(dict.fromkeys(row["run"] for row in rows)):
            colour = figures.COLOURS[index % len(figures.COLOURS)]
            for scaling, line in (("raw", "-"), ("temperature", ":")):
                here = [row for row in rows if (row["run"], row["region"], row["scaling"]) == (run, region, scaling)]
                x = [row["evaluations"] for row in here]
                axes.plot(x, [row["ece"] for row in here], line, marker="o", color=colour, label=f"{run}, {scaling}")
                axes.fill_between(x, [row["ece_low"] for row in here], [row["ece_high"] for row in here], color=colour, alpha=0.08, lw=0)
        axes.set(title=region, xlabel="network evaluations a prediction", xscale="log", ylim=(0, None))
    made.axes[0].set_ylabel("pooled ECE")
    made.axes[-1].legend()
    return made
