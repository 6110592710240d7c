"""Brightness as `data.normalise` has it, for images of a batch that are cases of their own, in functions that a program can be written with."""

import torch
from torch import Tensor

from ..data.normalise import Centred, Normalise, Percentile, Standard, Unit, Window, ZScore

KNOWN = (Unit, Percentile, ZScore, Window, Standard)


def known(normalise: Normalise) -> bool:
    return known(normalise.after) if type(normalise) is Centred else type(normalise) in KNOWN


def normalised(normalise: Normalise, images: Tensor) -> Tensor:
    """(b, c, h, w) of any size, each row by itself. What `Unit` refuses is clipped: a program cannot refuse."""
    match normalise:
        case Centred():
            return 2 * normalised(normalise.after, images) - 1
        case Unit():
            return images.clamp(0, 1)
        case Percentile():
            low, high = percentiles(images.flatten(1), normalise.low, normalise.high)
            return ((images - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        case ZScore():
            rows = images.flatten(2)
            count = rows.shape[2]
            mean = rows.mean(2, keepdim=True)
            variance = ((rows - mean) ** 2).sum(2, keepdim=True) / (count - 1)
            return (images - mean[..., None]) / variance.sqrt()[..., None].clamp(min=1e-8)
        case _:
            return normalise(images, "")


def percentiles(rows: Tensor, *shares: float) -> list[Tensor]:
    """(b, n) -> one (b, 1, 1, 1) for each share in percent: between the two nearest numbers in order, as NumPy's are."""
    ordered, last = rows.sort(1).values, rows.shape[1] - 1
    found = []
    for share in shares:
        place = torch.scalar_tensor(last, dtype=torch.float64) * (share / 100)
        below = place.floor().long().reshape(1)
        above = (below + 1).clamp(max=last)
        part = (place - below).float()
        low, high = ordered.index_select(1, below), ordered.index_select(1, above)
        found.append((low + (high - low) * part)[..., None, None])
    return found
