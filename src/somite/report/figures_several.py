"""The figure of a page of several runs: paired differences with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..style import COLOURS, GREY, styled
from ..tasks.view import Plot, Section

MARKERS = "osD^vP*X"  # a second cue beside the colour


def differences(found: Mapping[str, Sequence[tuple[str, dict[str, Any]]]]) -> Section:
    """The section of the forest plot; without a plot where no metric lies in [0, 1]."""
    if not any(found.values()):
        return Section("forest", "Differences at a glance", [])
    text = (
        "Run minus reference over the same cases, with 95 % intervals; metrics between 0 and 1 alone. Which way is better is in the table."
    )
    plot = Plot(
        "Paired differences", forest(found), "Paired differences of each metric from the reference, with 95 % intervals", text, True
    )
    return Section("forest", "Differences at a glance", [plot])


@styled
def forest(found: Mapping[str, Sequence[tuple[str, dict[str, Any]]]]) -> Figure:
    """A line a metric, a marker a run."""
    names = list(dict.fromkeys(name for rows in found.values() for name, _ in rows))
    figure = Figure(figsize=(10, 0.9 + 0.26 * len(names) * max(1, len(found) ** 0.5)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1)
    for i, (run, rows) in enumerate(found.items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        for name, row in rows:
            y = names.index(name) + 0.7 * ((i + 0.5) / len(found) - 0.5)
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6)
            label = run if name == rows[0][0] else None
            axes.plot(row["difference"], y, marker=marker, color=colour, linestyle="none", label=label)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="run minus reference", ylim=(len(names) - 0.5, -0.5))
    axes.legend(loc="best")
    return figure
