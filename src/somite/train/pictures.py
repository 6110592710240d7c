"""Pictures of what training has reached: image, truth, mask and probability side by side, a case a row."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from ..tasks.task import Glimpse

SIDE, GAP = 128, 4


def glimpse_sheet(glimpses: Sequence[Glimpse]) -> Image.Image:
    sheet = Image.new("RGB", (4 * SIDE + 3 * GAP, len(glimpses) * (SIDE + GAP) - GAP), "white")
    for row, glimpse in enumerate(glimpses):
        panels = [grey(glimpse.image), grey(glimpse.truth > 0), grey(glimpse.mask > 0), grey(glimpse.probability)]
        for column, panel in enumerate(panels):
            sheet.paste(panel.resize((SIDE, SIDE)), (column * (SIDE + GAP), row * (SIDE + GAP)))
    return sheet


def grey(x: Tensor) -> Image.Image:
    """(h, w) or (c, h, w), stretched to its own range where it leaves [0, 1]."""
    array = x.float().cpu().numpy()
    if array.min() < 0 or array.max() > 1:
        array = (array - array.min()) / max(array.max() - array.min(), 1e-8)
    array = np.moveaxis(array[:3], 0, -1) if array.ndim == 3 and len(array) >= 3 else array.reshape(array.shape[-2:])
    return Image.fromarray(np.rint(array * 255).astype(np.uint8)).convert("RGB")
