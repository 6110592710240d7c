"""The figures of training, from metrics.csv, and how any figure is put into the page. Nothing here touches pyplot.

Text stays text in the SVG and takes the reader's own system font.
"""

import base64
import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..style import BLUE, INK, VERMILION, canvas, styled, zoom
from ..tasks.task import Row

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


@styled
def data_uri(figure: Figure) -> str:
    """The figure as SVG in a data URI, to stand in an <img> where its ids cannot meet those of another figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"'DejaVu Sans'[^;\"]*?sans-serif", FONTS, buffer.getvalue().decode())
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


@styled
def loss(metrics: Sequence[Row]) -> Figure:
    """Training loss over optimiser steps."""
    return steps(points(metrics, "train/loss"), "training loss", INK)


@styled
def validation(metrics: Sequence[Row], best: dict[str, float] | None, name: str) -> Figure:
    """The sampled validation score, whose name is given, over optimiser steps; a diamond marks the weights that were kept."""
    xy = points(metrics, "val/score")
    figure = steps(xy, f"validation {name}", BLUE)
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
