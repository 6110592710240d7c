"""Studies in one picture: Dice and calibration of every cell with intervals, and the noise loss over t."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.curves import means
from ..metrics.intervals import Interval
from ..style import COLOURS, DASHES, styled
from .masks import RAW
from .verdict import SHOWN, mean, picked

Rows = Sequence[dict[str, Any]]
MARKERS = "osD^vP"


@styled
def forests(rows: Rows, curves: Rows, columns: Sequence[str]) -> Figure:
    """The first of the columns (networks) from top to bottom, the second (methods) by colour and marker; the largest ensemble of each
    cell, not temperature-scaled.

    curves: the losses of diffusion by timestep; without them there are two panels.
    """
    networks, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in columns)
    made = Figure(figsize=(11.5 if curves else 8.5, 1.6 + 0.5 * len(networks)), layout="constrained")
    dice, ece, *rest = made.subplots(1, 3 if curves else 2)
    for axes, metric in ((dice, "dice"), (ece, "ece")):
        forest(axes, rows, metric, columns, networks, methods)
    ece.set_yticklabels([])
    made.legend(*dice.get_legend_handles_labels(), loc="outside lower left", ncols=len(methods))
    for axes in rest:
        loss(axes, curves)
    return made


def forest(axes: Axes, rows: Rows, metric: str, columns: Sequence[str], networks: Sequence[str], methods: Sequence[str]) -> None:
    """Means with 95 % intervals over groups."""
    for index, method in enumerate(methods):
        shift = 0.7 * ((index + 0.5) / len(methods) - 0.5)
        cells = [
            (place + shift, picked(rows, None, RAW, **dict(zip(columns, (network, method), strict=True))))
            for place, network in enumerate(networks)
        ]
        found = [(y, mean(here, metric)) for y, here in cells if here]
        x = [one.mean for _, one in found]
        ends = [[abs(one.mean - end) for end in (one.low, one.high)] for _, one in found]
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linewidth": 1.4, "label": method}
        axes.errorbar(x, [y for y, _ in found], xerr=list(zip(*ends, strict=True)), linestyle="", **look)
    axes.set_yticks(range(len(networks)), networks)
    axes.invert_yaxis()
    axes.set_xlabel(SHOWN[metric])


def spans(axes: Axes, names: Sequence[str], found: Sequence[Interval], label: str, colour: str = COLOURS[0]) -> None:
    """One line a cell, the first on top: a number with its interval."""
    ends = [[abs(one.mean - one.low) for one in found], [abs(one.high - one.mean) for one in found]]
    axes.errorbar([one.mean for one in found], range(len(found)), xerr=ends, linestyle="", marker="o", color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(label)
    axes.set_ylim(len(names) - 0.5, -0.5)


def loss(axes: Axes, curves: Rows) -> None:
    """In eps units, means over cases and seeds."""
    for index, network in enumerate(dict.fromkeys(row["network"] for row in curves)):
        here = [{**row, "loss": float(row["loss_eps"])} for row in curves if row["network"] == network]
        found = means(here, "loss")
        axes.plot(list(found), [one.mean for one in found.values()], color=COLOURS[index], linestyle=DASHES[index], label=network)
    axes.set(xlabel="timestep t", ylabel="loss in eps units", ylim=(0, None))
    axes.legend()
