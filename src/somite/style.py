"""How all figures look. Nothing here touches pyplot.

Colours are Okabe and Ito's (2008), which people with any colour vision tell apart; a second cue (marker or dash) goes with
each.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, INK, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#23272f", "#8b929c",
)  # fmt: skip
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "somite",  # the same data give the same file
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#c3c8cf",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff2",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": "#5b626c",
    "ytick.color": "#5b626c",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK, GREY)
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)))


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Within `draw`, and only there, matplotlib follows STYLE."""

    @functools.wraps(draw)
    def inside(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever `draw` returns
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def canvas(height: float = 3.2) -> tuple[Figure, Axes]:
    """One plot of a report."""
    figure = Figure(figsize=(5, height), layout="constrained")
    return figure, figure.subplots()


def zoom(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Room around the values, at least 0.1 in all, so that noise does not fill a plot and a constant has an axis."""
    low, high = float(np.min(values)), float(np.max(values))
    room = max(0.08 * (high - low), (0.1 - (high - low)) / 2, 0.01)
    axes.set_ylim(low - room, high + room)
