"""How stability looks: the least stable case at several seeds, and the distribution over cases and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..data.record import Case
from ..metrics.uncertainty import spread
from ..pipeline import Run
from ..style import zoom
from ..tasks.segmentation.brightness import brightness
from ..tasks.segmentation.pictures import PROBABILITY, SPREAD, foreground, photograph
from ..tasks.segmentation.planes import sliced
from ..tasks.task import Row
from . import figures

SHOWN = 5  # seeds


@dataclass
class Look:
    """One plane of one case: pictures (h, w, 3), and the foreground's probability at each seed (seeds, h, w)."""

    case: str
    image: NDArray[np.uint8]
    maps: NDArray[np.float32]
    seeds: Sequence[int]
    size: tuple[int, int]  # (width, height), in the proportions of the case


def look_of(run: Run, case: Case, seeds: Sequence[int], index: int) -> Look:
    """index: the slice of a volume to look at."""
    record = run.recipe.data.read(case)
    plane = sliced(record, run.recipe.data.preprocess.axis, index)
    maps = [plane(foreground(run.at(seed=seed).answer(record).probability)) for seed in seeds]
    bright = brightness(record, record.truth > 0) if len(record.shape) == 3 else None
    return Look(case.id, np.asarray(photograph(record, plane, bright)), np.stack(maps), seeds, plane.size)


@figures.styled
def figure(look: Look, rows: Sequence[Row], by_seed: Sequence[Row]) -> Figure:
    made = Figure(figsize=(10, 4.6), layout="constrained")
    halves = made.add_gridspec(2, 1, height_ratios=(1, 1.25))
    top, bottom = made.add_subfigure(halves[0]), made.add_subfigure(halves[1])
    shown = min(SHOWN, len(look.maps))
    pictures(top.subplots(1, shown + 2), look, shown)
    top.suptitle(f"{look.case}, the least stable case", fontsize=9.5)
    pairwise, similar, dice = bottom.subplots(1, 3)
    histogram(pairwise, [row["pairwise_dice"] for row in rows], "Dice of pairs of seeds")
    measured = [row["ssim"] for row in rows if row["ssim"] is not None]
    histogram(similar, measured, "SSIM of maps to the first seed's")
    seeds, means = ([row[key] for row in by_seed] for key in ("seed", "mean"))
    dice.plot(seeds, means, "o", color=figures.COLOURS[0])
    dice.axhline(float(np.mean(means)), color=figures.GREY, linewidth=1.2, linestyle=(0, (5, 2)))
    dice.set(xlabel="seed", ylabel="mean Dice of the set", title=f"standard deviation {np.std(means, ddof=1):.4f}")
    zoom(dice, means)
    dice.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return made


def pictures(axes: Sequence[Axes], look: Look, shown: int) -> None:
    """The image with the truth outlined, the first maps, and the standard deviation over all seeds with its scale."""
    extent = (0, look.size[0], look.size[1], 0)
    axes[0].imshow(look.image, extent=extent)
    axes[0].set_title("image, truth")
    for at, seed, map_ in zip(axes[1:], look.seeds[:shown], look.maps, strict=False):
        at.imshow(map_, cmap=scale(PROBABILITY), vmin=0, vmax=1, extent=extent)
        at.set_title(f"seed {seed}")
    deviation = spread(look.maps)
    last = axes[-1].imshow(deviation, cmap=scale(SPREAD), vmin=0, vmax=max(float(deviation.max()), 0.01), extent=extent)
    axes[-1].set_title(f"deviation of {len(look.maps)}")
    axes[-1].figure.colorbar(last, ax=axes[-1], shrink=0.8)
    for at in axes:
        at.set(xticks=[], yticks=[])
        at.grid(visible=False)


def scale(dark: tuple[int, int, int]) -> LinearSegmentedColormap:
    """From white to a dark colour, as in the report."""
    return LinearSegmentedColormap.from_list("scale", [(1, 1, 1), tuple(value / 255 for value in dark)])


def histogram(axes: Axes, values: Sequence[float], label: str) -> None:
    """Cases by value, with the mean; a note where nothing was measured."""
    axes.set(xlabel=label, ylabel="cases")
    if not values:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", color=figures.GREY, transform=axes.transAxes)
        return
    low = min(*values, 0.9)
    axes.hist(values, bins=np.linspace(low, 1.0, 21).tolist(), color=figures.COLOURS[0])
    axes.axvline(float(np.mean(values)), color=figures.INK, linewidth=1.2, linestyle=(0, (5, 2)), label=f"mean {np.mean(values):.3f}")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(loc="upper left")
