"""The figures of a segmentation's report: one function each, from rows to a matplotlib Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from ...metrics.intervals import Interval, interval
from ...metrics.selective import risk_coverage
from ...style import BLUE, COLOURS, DASHES, GREEN, GREY, INK, SKY, VERMILION, canvas, styled, zoom
from .whole import TERCILES

Row = dict[str, Any]
FIRST = 12  # cases to look at that are shown
REGIONS = {"all": (BLUE, "o", "all pixels"), "boundary": (GREEN, "s", "boundary"), "foreground": (VERMILION, "^", "foreground")}


@styled
def reliability(bins: Sequence[Row]) -> Figure:
    """Observed share against probability, all cases pooled, by region; below, how many pixels each bin holds."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    top.text(0.72, 0.66, "calibrated", color=GREY, fontsize=8.5, ha="left", va="top")
    for name, (colour, marker, label) in REGIONS.items():
        count, confidence, positives = pooled([row for row in bins if row["region"] == name])
        full = count > 0
        top.plot(confidence[full] / count[full], positives[full] / count[full], color=colour, marker=marker, label=label)
        edges = np.linspace(0, 1, len(count) + 1)
        bottom.stairs(np.maximum(count, 0.5), edges, baseline=0.5, color=colour, linewidth=1.4)
        if name == "all":
            bottom.stairs(np.maximum(count, 0.5), edges, baseline=0.5, color=colour, fill=True, alpha=0.12)
    top.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel="observed share of foreground")
    top.legend(loc="upper left", bbox_to_anchor=(0.0, 0.97))
    bottom.set(yscale="log", ylim=(0.5, None), xlabel="predicted probability", ylabel="pixels")
    bottom.yaxis.set_minor_formatter(NullFormatter())
    figure.align_ylabels()
    return figure


@styled
def reliabilities(bins: Mapping[str, Sequence[Row]]) -> Figure:
    """Observed share against probability of several runs, a panel a region."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, (region, (_, _, label)) in zip(figure.subplots(1, len(REGIONS), sharey=True), REGIONS.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for i, (name, rows) in enumerate(bins.items()):
            count, confidence, positives = pooled([row for row in rows if row["region"] == region])
            full = count > 0
            line = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
            axes.plot(confidence[full] / count[full], positives[full] / count[full], marker="o", label=name, **line)
        axes.set(title=label, xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), xlabel="predicted probability")
    figure.axes[0].set_ylabel("observed share of foreground")
    figure.axes[0].legend(loc="upper left")
    return figure


def pooled(bins: Sequence[Row]) -> np.ndarray:
    """The sums over cases: (3, bins) of count, confidence and positives."""
    total = np.zeros((3, 1 + max((int(row["bin"]) for row in bins), default=0)))
    for row in bins:
        total[:, int(row["bin"])] += [float(row[key]) for key in ("count", "confidence", "positives")]
    return total


@styled
def by_size(rows: Sequence[Row], summary: dict[str, Any]) -> Figure:
    """Each case's Dice by the tercile of its size; the mean and its interval beside."""
    parts = [part for part in ("empty", *TERCILES) if part in summary["by_size"]]
    figure, axes = canvas()
    random = np.random.default_rng(0)
    for x, part in enumerate(parts):
        values = [float(row["dice"]) for row in rows if row["tercile"] == part]
        axes.scatter(x + random.uniform(-0.16, 0.16, len(values)), values, s=20, color=SKY, alpha=0.8, linewidths=0)
        whisker(axes, x + 0.3, summary["by_size"][part])
    axes.set_xticks(range(len(parts)), [f"{part}\nn = {summary['by_size'][part]['cases']}" for part in parts])
    axes.set(xlim=(-0.5, len(parts) - 0.3), ylabel="Dice")
    axes.grid(axis="x", visible=False)
    zoom(axes, [float(row["dice"]) for row in rows])
    return figure


def whisker(axes: Axes, x: float, found: dict[str, Any]) -> None:
    if found["low"] is not None:
        axes.plot([x, x], [found["low"], found["high"]], color=INK, linewidth=1.6, solid_capstyle="round")
    axes.plot([x], [found["mean"]], marker="D", markersize=5, color=INK)


@styled
def curve(curves: Sequence[Row], axis: str) -> Figure:
    """Mean Dice against the number of members or of reverse steps, with intervals over cases."""
    rows = [row for row in curves if row["axis"] == axis]
    at = sorted({int(row["at"]) for row in rows})
    found = [mean_of([row for row in rows if int(row["at"]) == n]) for n in at]
    means = np.array([one.mean for one in found])
    low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
    figure, axes = canvas(2.9)
    axes.fill_between(at, low, high, color=BLUE, alpha=0.13, linewidth=0)
    axes.plot(at, means, color=BLUE, marker="o")
    axes.set(xscale="log", ylabel="Dice", xlabel={"members": "members", "steps": "reverse steps"}[axis])
    axes.set_xticks(at, [str(n) for n in at])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", visible=False)
    zoom(axes, [*means, *low[~np.isnan(low)], *high[~np.isnan(high)]])
    return figure


def mean_of(rows: Sequence[Row]) -> Interval:
    return interval([float(row["dice"]) for row in rows], [row["group"] for row in rows])


@styled
def selective(rows: Sequence[Row]) -> Figure:
    """Mean risk of the cases that are kept, surest first, between the ideal order and no order."""
    risk = np.array([1 - float(row["dice"]) for row in rows])
    sure = -np.array([float(row["nqm"]) for row in rows])
    figure, axes = canvas(2.9)
    axes.axhline(risk.mean(), color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="without order")
    axes.plot(*risk_coverage(risk, -risk), color=GREEN, linewidth=1.2, linestyle=(0, (1, 1)), label="ideal order")
    axes.plot(*risk_coverage(risk, sure), color=BLUE, label="by -NQM")
    axes.set(xlim=(0, 1.02), xlabel="share of cases kept, the surest first", ylabel="mean of 1 - Dice")
    axes.set_ylim(bottom=0, top=max(1.25 * axes.get_ylim()[1], 0.05))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="upper left", ncols=3, handlelength=1.6, columnspacing=1.2)
    return figure


def numbered(rows: Sequence[Row]) -> list[Row]:
    """The table "quality" with numbers for text, the lowest prediction first."""
    names = ("sign", "predicted", "low", "high", "score")
    told = [{**row, **{name: float(row[name]) for name in names}} for row in rows]
    return sorted(told, key=lambda row: (row["predicted"], row["sign"], row["case"]))


@styled
def look_first(rows: Sequence[Row]) -> Figure:
    """Of the first rows the predicted Dice with its interval, and the Dice that came."""
    shown = rows[:FIRST]
    figure, axes = canvas(0.7 + 0.24 * len(shown))
    for place, row in enumerate(shown):
        axes.plot([row["low"], row["high"]], [place, place], color=SKY, linewidth=5, alpha=0.5, solid_capstyle="butt")
        axes.plot([row["predicted"]], [place], marker="|", markersize=9, color=BLUE, label="predicted" if place == 0 else None)
        axes.plot([row["score"]], [place], marker="o", color=VERMILION, linestyle="none", label="true" if place == 0 else None)
    axes.set_yticks(range(len(shown)), [str(row["case"]) for row in shown])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(shown) - 0.4, -0.9), xlabel="Dice")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


@styled
def foretold(rows: Sequence[Row]) -> Figure:
    """True against predicted Dice, in the band of the interval."""
    figure, axes = canvas()
    ordered = sorted(rows, key=lambda row: row["predicted"])
    predicted, low, high, score = ([row[name] for row in ordered] for name in ("predicted", "low", "high", "score"))
    axes.fill_between(predicted, low, high, color=SKY, alpha=0.25, linewidth=0)
    axes.plot(predicted, predicted, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.scatter(predicted, score, s=20, color=BLUE, alpha=0.8, linewidths=0)
    axes.set(xlabel="predicted Dice", ylabel="true Dice")
    zoom(axes, [*score, *low, *high])
    return figure
