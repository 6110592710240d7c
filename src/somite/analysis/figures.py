"""The analyses' figures, from tables of rows to a matplotlib Figure. Nothing here touches pyplot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import replacing
from ..style import COLOURS, DASHES, GREY, INK, styled
from ..tasks.task import Row

CONDITIONS = {
    "image": (COLOURS[0], "o", "with the image"),
    "shuffled": (COLOURS[1], "^", "another case's image"),
    "blank": (COLOURS[2], "s", "grey image"),
}


@styled
def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """The figure as SVG and PNG; the same data give the same files."""
    paths = []
    for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        path = out / f"{name}.{suffix}"
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
        paths.append(path)
    return paths


@styled
def fingerprints(
    tables: Mapping[str, Sequence[Row]], summaries: Mapping[str, Mapping[str, Any]], learned: Mapping[str, Sequence[Row]]
) -> Figure:
    """The share of the prior's error that is left, by t and by log-SNR, of several data sets; dots where half is left.

    learned: the tables of trained networks, drawn as crosses; may be empty.
    """
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (name, rows) in enumerate(tables.items()):
        colour, dash = COLOURS[i % 6], DASHES[i % len(DASHES)]
        share = [row["share_best"] for row in rows]
        half = summaries[name]["half_best"]
        for axes, key in ((left, "t"), (right, "log_snr")):
            x = [row[key] for row in rows]
            axes.plot(x, share, color=colour, linestyle=dash, label=name)
            if "share_whole" in rows[0]:
                axes.plot(x, [row["share_whole"] for row in rows], color=colour, linewidth=0.7, alpha=0.45)
            if np.isfinite([row["low"] for row in rows]).all():
                axes.fill_between(x, [row["low"] for row in rows], [row["high"] for row in rows], color=colour, alpha=0.1, linewidth=0)
            if name in learned:
                axes.plot([row[key] for row in learned[name]], [row["share_best"] for row in learned[name]], "x", color=colour)
            if half["reached"]:
                axes.plot([half[key]], [0.5], "o", color=colour)
    for axes in (left, right):
        axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_ylim(0, 1.25)
    left.set(xlabel="timestep t", ylabel="error of the denoiser / error of the mean mask")
    right.set(xlabel="log-SNR", xlim=(-11, 6))
    right.invert_xaxis()
    crosses = "; crosses: a trained network" if learned else ""
    left.legend(loc="upper left", title=f"thick: best denoiser; thin: other masks only{crosses}", title_fontsize=8)
    return figure


@styled
def timesteps(table: Sequence[Row], exact: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Losses in both units by condition, the benefit of the image, and what the mask keeps; exact denoisers of solvable masks dashed."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    (x0, eps), (gain, kept) = figure.subplots(2, 2)
    for axes, unit in ((x0, "loss_x0"), (eps, "loss_eps")):
        for condition, (colour, marker, label) in CONDITIONS.items():
            rows = [row for row in table if f"{unit}_{condition}" in row]
            if rows:
                curve(axes, rows, f"{unit}_{condition}", colour, marker, label)
        theories(axes, exact, unit)
        axes.set(xlabel="timestep t", ylabel={"loss_x0": "loss in x0 units", "loss_eps": "loss in eps units"}[unit])
        top = max(row[f"{unit}_image"] for row in table)
        highest = max(float(one[unit].max()) for one in exact.values())
        axes.set_ylim(
            0, 1.3 * max(highest, top if unit == "loss_x0" else min(top, 3 * highest))
        )  # a network's error may be off by orders of magnitude, in eps above all
    x0.legend(loc="upper left")
    for unit, name, colour, marker in (("eps", "benefit", COLOURS[0], "o"), ("x0", "benefit_x0", COLOURS[1], "^")):
        height = max(abs(row[name]) for row in table) or 1.0
        gain.plot(
            [row["log_snr"] for row in table],
            [row[name] / height for row in table],
            color=colour,
            marker=marker,
            label=f"{unit} units / {height:.2g}",
        )
    gain.axhline(0, color=GREY, linewidth=0.8)
    gain.set(xlabel="log-SNR", ylabel="benefit of the image, scaled")
    gain.invert_xaxis()
    gain.legend()
    curve(kept, table, "retained", COLOURS[0], "o", "best without the case's image")
    theories(kept, exact, "retained")
    kept.set(xlabel="timestep t", ylabel="information the mask keeps", ylim=(-0.02, 1.05))
    kept.legend()
    return figure


def theories(axes: Axes, exact: Mapping[str, Mapping[str, np.ndarray]], column: str) -> None:
    for (name, one), dash in zip(exact.items(), DASHES[1:], strict=False):
        axes.plot(one["t"], one[column], color=INK, linestyle=dash, linewidth=1.1, label=f"{name} (exact)")


def curve(axes: Axes, rows: Sequence[Row], column: str, colour: str, marker: str, label: str) -> None:
    t = [row["t"] for row in rows]
    axes.plot(t, [row[column] for row in rows], color=colour, marker=marker, label=label)
    low, high = ([row.get(f"{column}_{end}", np.nan) for row in rows] for end in ("low", "high"))
    if np.isfinite(low).all() and np.isfinite(high).all():
        axes.fill_between(t, low, high, color=colour, alpha=0.12, linewidth=0)
