"""Pictures of what training has reached: what the task wants seen of a case, side by side, a case a row."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..tasks.task import Glimpse

SIDE, GAP, TITLE = 128, 4, 14


def glimpse_sheet(glimpses: Sequence[Glimpse]) -> Image.Image:
    """A row a case, a column a panel with its name above."""
    names = list(glimpses[0].panels)
    size = len(names) * (SIDE + GAP) - GAP, TITLE + len(glimpses) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((column * (SIDE + GAP) + 2, 1), name, fill="black")
        for row, glimpse in enumerate(glimpses):
            sheet.paste(grey(glimpse.panels[name]).resize((SIDE, SIDE)), (column * (SIDE + GAP), TITLE + row * (SIDE + GAP)))
    return sheet


def grey(x: Tensor) -> Image.Image:
    """(h, w) or (c, h, w), stretched to its own range where it leaves [0, 1]."""
    array = x.float().cpu().numpy()
    if array.min() < 0 or array.max() > 1:
        array = (array - array.min()) / max(array.max() - array.min(), 1e-8)
    array = np.moveaxis(array[:3], 0, -1) if array.ndim == 3 and len(array) >= 3 else array.reshape(array.shape[-2:])
    return Image.fromarray(np.rint(array * 255).astype(np.uint8)).convert("RGB")
