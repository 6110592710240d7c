"""How pretexts look: brightness as pixels, and denoising against the noise level."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..style import BLUE, GREY, canvas, styled


def pixels(image: Tensor) -> np.ndarray:
    """(c, h, w) in [0, 1] -> (h, w, 3) uint8, of other than 3 channels the first."""
    shown = image if len(image) == 3 else image[:1].expand(3, -1, -1)
    return np.rint(255 * shown.clamp(0, 1).movedim(0, -1).numpy()).astype(np.uint8)


@styled
def by_level(rows: Sequence[dict[str, Any]]) -> Figure:
    """rows of (t, psnr, spoiled)."""
    made, axes = canvas()
    levels = sorted({int(row["t"]) for row in rows})
    for name, column, colour in (("denoised", "psnr", BLUE), ("as given", "spoiled", GREY)):
        values = [float(np.mean([float(row[column]) for row in rows if int(row["t"]) == t])) for t in levels]
        axes.plot(levels, values, marker="o", color=colour, label=name)
    axes.set(xlabel="timestep", ylabel="PSNR (dB)", xscale="log" if levels[0] > 0 else "linear")
    axes.legend()
    return made
