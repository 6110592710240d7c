"""Does training produce masks at all? The usual failures of diffusion segmenters, said in words while it runs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..task import Glimpse

EMPTY, FULL, NOISE = 0.02, 0.98, 0.6


def diagnose(glimpses: Sequence[Glimpse]) -> str | None:
    """A sentence if nearly all masks are empty, full or noise where the truth is not; None if all is well."""
    told = [g.panels for g in glimpses if 0 < foreground(g.panels["truth"]) < 1]
    if not told:
        return None
    truth = mean([foreground(panels["truth"]) for panels in told])
    share = mean([foreground(panels["mask"]) for panels in told])
    rough = mean([roughness(panels["mask"] > 0) for panels in told])
    if share < EMPTY * truth:
        return (
            f"collapse: the sampled masks are (nearly) all empty ({share:.2%} foreground where the truth has {truth:.2%}). Usual causes: "
            "too few steps so far, noise prediction sampled in one step, or a loss without a Dice part on small objects"
        )
    if share > FULL:
        return (
            f"collapse: the sampled masks are (nearly) all full ({share:.2%} foreground where the truth has {truth:.2%}). Usual causes: "
            "inverted masks, images outside the range that the recipe expects, or a learning rate that is too high"
        )
    if rough > NOISE:
        return (
            f"collapse: the sampled masks are noise (neighbouring pixels differ {rough:.0%} as often as in pure noise). Usual causes: "
            "too few training steps so far, too few sampling steps for noise prediction, or a wrong mask range"
        )
    return None


def foreground(mask: Tensor) -> float:
    return float((mask > 0).float().mean())


def roughness(mask: Tensor) -> float:
    """How often neighbours differ, relative to independent pixels of the same foreground share p: 2 p (1 - p). 0 smooth, 1 noise."""
    p = foreground(mask)
    expected = 2 * p * (1 - p)
    if expected == 0:
        return 0.0
    differ = torch.cat([(mask[1:] != mask[:-1]).float().flatten(), (mask[:, 1:] != mask[:, :-1]).float().flatten()])
    return float(differ.mean()) / expected


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
