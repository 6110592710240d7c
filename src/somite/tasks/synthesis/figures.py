"""The figures of a report of synthesis: strips of images under their names, and how far images lie from the training images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ...style import BLUE, GREY, VERMILION, canvas, styled

WIDTH, GAP, LINE = 10.4, 0.06, 0.17  # inches: of a figure over the whole page, between images, of a line of text
LARGEST = 1.43  # inches of an image's width
PIXELS = 128  # of an image's longer side: more would only make the page heavy
CHANCE = (0, (4, 3))

Picture = np.ndarray  # uint8 (h, w) or (h, w, 3)


@dataclass(frozen=True)
class Strip:
    """Images side by side; None leaves a place free. name: above them. captions: a text of one line or more under each."""

    images: Sequence[Picture | None]
    name: str = ""
    captions: Sequence[str] = field(default=())


@styled
def strips(rows: Sequence[Strip], heads: Sequence[tuple[int, str]] = ()) -> Figure:
    """Strips one under the other. heads: texts above the first, each at the column where it begins."""
    columns = max(len(row.images) for row in rows)
    width = min(LARGEST, (WIDTH + GAP) / columns - GAP)
    height = max(shown.shape[0] / shown.shape[1] for row in rows for shown in row.images if shown is not None) * width
    tops, at = [], LINE * 1.4 if heads else 0.0
    for row in rows:
        at += LINE * 1.3 if row.name else 0.0
        tops.append(at)
        at += height + GAP + LINE * max((1 + text.count("\n") for text in row.captions), default=0)
    figure = Figure(figsize=(WIDTH, at))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(at, 0))
    axes.axis("off")
    for column, text in heads:
        axes.text(column * (width + GAP), LINE * 1.1, text, ha="left", va="baseline", weight="bold")
    for row, top in zip(rows, tops, strict=True):
        strip(axes, row, top, width, height)
    axes.set(xlim=(0, WIDTH), ylim=(at, 0), aspect="auto")  # each image has moved the limits to its own
    return figure


def strip(axes: Axes, row: Strip, top: float, width: float, height: float) -> None:
    axes.text(0, top - LINE * 0.35, row.name, ha="left", va="baseline")
    for column, image in enumerate(row.images):
        left = column * (width + GAP)
        if image is not None:
            tall = image.shape[0] / image.shape[1] * width
            place = (left, left + width, top + tall, top)
            axes.imshow(small(image), cmap="gray", vmin=0, vmax=255, extent=place, interpolation="none", aspect="auto")
        for line, text in enumerate((row.captions[column] if column < len(row.captions) else "").split("\n")):
            axes.text(left, top + height + LINE * (line + 0.85), text, ha="left", va="baseline", fontsize=7.5, color="#5b626c")


def small(image: Picture) -> Picture:
    """At most PIXELS a side."""
    scale = PIXELS / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


@styled
def distances(made: np.ndarray, held_out: np.ndarray, threshold: float, label: str) -> Figure:
    """The share of images within each distance of their nearest training image, generated and held out."""
    figure, axes = canvas(2.9)
    for values, colour, dash, name in ((held_out, BLUE, "-", "held out"), (made, VERMILION, (0, (5, 2)), "generated")):
        axes.ecdf(values, color=colour, linestyle=dash, label=name)
    axes.axvline(threshold, color=GREY, linewidth=1, linestyle=CHANCE)
    axes.set(xlabel=label, ylabel="share of images", xlim=(0, None), ylim=(-0.02, 1.02))
    axes.legend(loc="best")
    return figure
