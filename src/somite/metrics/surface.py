"""How far apart the surfaces of two masks are: normalised surface Dice and the 95th-percentile Hausdorff distance.

The surface of a mask is the set of its own pixels with a face neighbour outside it; beyond the image is outside.
With d(a, B) the distance from pixel centre a to the nearest surface pixel of B, and surfaces M (mask), T (truth):

    nsd(tau) = (#{m in M: d(m, T) <= tau} + #{t in T: d(t, M) <= tau}) / (|M| + |T|)   (Nikolov et al. 2018)
    hd95     = max(P95{d(m, T)}, P95{d(t, M)})

These are the definitions of MONAI's compute_surface_dice (use_subvoxels=False) and
compute_hausdorff_distance(percentile=95, directed=False). Empty masks follow `overlap.EMPTY_RULE`; MONAI gives NaN,
inf or 0 there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .overlap import check_masks

SLACK = 1e-6  # relative: three steps of 0.1 mm are within a tolerance of 0.3 mm, whatever the rounding


def surface(mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    """The distance between two surfaces: nsd in [0, 1], higher is better, and hd95 in the unit of spacing, lower is.

    spacing is the size of a pixel along each axis (mm, or ones for pixels) and tolerance a distance in the same
    unit; the formulas are at the head of this file. Raises ValueError for masks that are not boolean or differ in
    shape, for a spacing that is not one positive number per axis, and for a negative tolerance.
    """
    check_masks(mask, truth)
    steps = np.asarray(spacing, dtype=np.float64)
    if steps.shape != (mask.ndim,) or not np.all(np.isfinite(steps) & (steps > 0)):
        raise ValueError(f"spacing is {spacing}; want {mask.ndim} positive numbers, one per axis of {mask.shape}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; want a distance >= 0 in the unit of spacing")
    filled = bool(mask.any()), bool(truth.any())
    if not any(filled):
        return {"nsd": 1.0, "hd95": 0.0}
    if not all(filled):
        return {"nsd": 0.0, "hd95": float(np.linalg.norm(steps * mask.shape))}
    box = _box(mask | truth)
    edges, other = _edges(mask[box]), _edges(truth[box])
    forth, back = _distances(edges, other, steps), _distances(other, edges, steps)
    limit = tolerance * (1 + SLACK)
    near = np.count_nonzero(forth <= limit) + np.count_nonzero(back <= limit)
    return {
        "nsd": float(near / (forth.size + back.size)),
        "hd95": float(max(np.percentile(forth, 95), np.percentile(back, 95))),
    }


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds the mask: nothing outside it can change a surface or a distance between two."""
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    return tuple(slice(int(h[0]), int(h[-1]) + 1) for h in hits)


def _edges(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # border_value=0 stands for the ring of background that a tight box cuts off
    return mask & ~ndimage.binary_erosion(mask, border_value=0)


def _distances(source: NDArray[np.bool_], target: NDArray[np.bool_], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """For every pixel of source, the distance to the nearest pixel of target."""
    return np.asarray(ndimage.distance_transform_edt(~target, sampling=steps))[source]
