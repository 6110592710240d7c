"""The report's figures: one function each, from rows of CSV files to a matplotlib Figure. Nothing here touches pyplot.

Text stays text in the SVG and takes the reader's own system font.
"""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from ..evaluation import TERCILES
from ..metrics.intervals import Interval, interval
from ..metrics.selective import risk_coverage
from ..style import BLUE, GREEN, GREY, INK, SKY, VERMILION, styled
from ..tasks.task import Row

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
REGIONS = {"all": (BLUE, "o", "all pixels"), "boundary": (GREEN, "s", "boundary"), "foreground": (VERMILION, "^", "foreground")}


@styled
def data_uri(figure: Figure) -> str:
    """The figure as SVG in a data URI, to stand in an <img> where its ids cannot meet those of another figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"'DejaVu Sans'[^;\"]*?sans-serif", FONTS, buffer.getvalue().decode())
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def canvas(height: float = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, height), layout="constrained")
    return figure, figure.subplots()


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


@styled
def loss(metrics: Sequence[Row]) -> Figure:
    """Training loss over optimiser steps."""
    return steps(points(metrics, "train/loss"), "training loss", INK)


@styled
def validation(metrics: Sequence[Row], best: dict[str, float] | None) -> Figure:
    """Sampled validation Dice over optimiser steps; a diamond marks the weights that were kept."""
    xy = points(metrics, "val/dice")
    figure = steps(xy, "validation Dice", BLUE)
    zoom(figure.axes[0], xy[:, 1])
    if best and best["step"]:
        figure.axes[0].plot([best["step"]], [best["score"]], marker="D", markersize=7, color=VERMILION, linestyle="none")
    return figure


def steps(xy: np.ndarray, label: str, colour: str) -> Figure:
    figure, axes = canvas(2.9)
    axes.plot(*xy.T, color=colour, linewidth=1.4, marker="o" if len(xy) < 30 else None)
    axes.set(xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def points(metrics: Sequence[Row], name: str) -> np.ndarray:
    """(n, 2) of step and value; a step is counted from 1, as training.json does."""
    return np.array([(int(row["step"]) + 1, float(row["value"])) for row in metrics if row["metric"] == name])


def zoom(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Room around the values, at least 0.1 in all, so that noise does not fill a plot and a constant has an axis."""
    low, high = float(np.min(values)), float(np.max(values))
    room = max(0.08 * (high - low), (0.1 - (high - low)) / 2, 0.01)
    axes.set_ylim(low - room, high + room)
