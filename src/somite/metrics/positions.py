"""How well a map of coordinates says where voxels lie."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """error: mean distance in mm from the places that the best affine map gives; r2: share of their variance that it explains; superior: rank
    correlation of the third coordinate with the way to the head.
    """

    error: float
    r2: float
    superior: float


def fitted(said: Tensor, mm: Tensor) -> Fit:
    """What is said of n voxels (n, 3), and where they lie in mm to the right, front and head (n, 3). Learned coordinates have axes of their own
    (arXiv 2409.10291), hence the affine map.
    """
    found, places = said.double().cpu().numpy(), mm.double().cpu().numpy()
    given = np.concatenate([found, np.ones((len(found), 1))], 1)
    best, *_ = np.linalg.lstsq(given, places, rcond=None)
    apart = places - given @ best
    spread = ((places - places.mean(0)) ** 2).sum()
    ranks = [rankdata(column) for column in (found[:, 2], places[:, 2])]
    rank = np.corrcoef(*ranks)[0, 1] if all(np.ptp(one) for one in ranks) else 0.0
    return Fit(float(np.linalg.norm(apart, axis=1).mean()), float(1 - (apart**2).sum() / max(spread, 1e-12)), float(rank))
