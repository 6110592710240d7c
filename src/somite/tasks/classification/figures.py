"""The figures of a classification's report."""

import numpy as np
from matplotlib.figure import Figure

from ...metrics import classification
from ...metrics.calibration import bins
from ...style import BLUE, COLOURS, DASHES, GREY, INK, canvas, styled
from .whole import Set

MANY = 12  # classes whose names fit beside their curves
CHANCE = (0, (4, 3))


@styled
def roc(whole: Set) -> Figure:
    figure, axes = canvas(3.6)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=CHANCE)
    for index, name in enumerate(whole.names):
        if 0 < whole.y[:, index].sum() < len(whole.y):
            axes.plot(*classification.roc(whole.p[:, index], whole.y[:, index]), **line(index), label=name)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="1 - specificity", ylabel="sensitivity")
    if len(whole.names) <= MANY and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return figure


@styled
def precision_recall(whole: Set) -> Figure:
    figure, axes = canvas(3.6)
    for index, name in enumerate(whole.names):
        having = whole.y[:, index].mean()
        if having > 0:
            style = line(index)
            axes.plot(*classification.precision_recall(whole.p[:, index], whole.y[:, index]), **style, label=name)
            axes.axhline(having, color=style["color"], linewidth=0.8, linestyle=CHANCE)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="recall (sensitivity)", ylabel="precision")
    if len(whole.names) <= MANY:
        axes.legend(loc="lower left")
    return figure


def line(index: int) -> dict:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)], "linewidth": 1.5}


@styled
def confusion(whole: Set) -> Figure:
    count = len(whole.names)
    table = np.zeros((count, count), int)
    np.add.at(table, (whole.y.argmax(1), whole.p.argmax(1)), 1)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    figure, axes = canvas(min(max(2.6, 0.4 * count + 1), 7))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= MANY:
        for (i, j), n in np.ndenumerate(table):
            axes.text(j, i, str(n), ha="center", va="center", fontsize=8.5, color="white" if shares[i, j] > 0.6 else INK)
    axes.set_xticks(range(count), whole.names, rotation=0 if count <= 3 else 90)
    axes.set_yticks(range(count), whole.names)
    axes.set(xlabel="answer", ylabel="truth")
    axes.grid(visible=False)
    return figure


@styled
def reliability(whole: Set, count: int) -> Figure:
    found = bins(*whole.judged(), count)
    full = found.count > 0
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=CHANCE)
    top.plot(found.confidence[full] / found.count[full], found.positives[full] / found.count[full], color=BLUE, marker="o")
    bottom.stairs(found.count, np.linspace(0, 1, count + 1), color=BLUE, fill=True, alpha=0.3)
    top.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel="share that is right")
    bottom.set(xlabel="predicted probability", ylabel="answers")
    figure.align_ylabels()
    return figure
