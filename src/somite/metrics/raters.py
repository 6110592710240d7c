"""How a set of sampled masks compares with a set of raters' masks. Sets are the first axis: members (n, *s), raters (r, *s).

Where raters disagree there is no single truth: a good ensemble is as varied as they are, and like them. With IoU of two
empty masks 1 (distance 0), of one empty mask with another 0, no case is left out and none is NaN. All measures are
blind to the order within either set.
"""

from math import lcm

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .overlap import overlap

Masks = NDArray[np.bool_]


def ged(members: Masks, raters: Masks) -> float:
    """The generalised energy distance, squared, in [0, 2]: 0 where both sets hold the same masks equally often.

    D^2 = 2 E d(S, Y) - E d(S, S') - E d(Y, Y') with d = 1 - IoU (Kohl et al. 2018; Szekely and Rizzo 2013). The
    expectations are means over *all* pairs, i = j (distance 0) included. IoU is a positive definite kernel (Bouchard et al.
    2013), so this is a squared maximum mean discrepancy and never negative. For n independent samples it is larger by
    E d(S, S') / n than for infinitely many: it falls with n for any sampler that varies. Compare at equal n only.
    """
    check_sets(members, raters)
    across, among, between = (1 - ious(a, b).mean() for a, b in ((members, raters), (members, members), (raters, raters)))
    return max(float(2 * across - among - between), 0.0)  # rounding alone goes below


def matched_iou(members: Masks, raters: Masks) -> float:
    """HM-IoU, in [0, 1], 1 where both sets hold the same masks equally often: the mean IoU of the best one-to-one matching.

    Each set is repeated until it has lcm(n, r) masks; then max over permutations p of mean_i IoU(S_i, Y_p(i)), found by the
    Hungarian method (Kohl et al. 2019, 'Hungarian-matched IoU'). Pairs of empty masks count 1, so a set that leaves out
    as often as the raters do is rewarded for it.
    """
    check_sets(members, raters)
    size = lcm(len(members), len(raters))
    found = np.tile(ious(members, raters), (size // len(members), size // len(raters)))
    return float(found[linear_sum_assignment(found, maximize=True)].mean())


def collective_insight(members: Masks, raters: Masks) -> dict[str, float]:
    """CIMD's score of accuracy and variety together and its three parts, each in [0, 1] and 1 for equal sets.

    combined_sensitivity S: the recall of the union of the raters by the union of the members.
    maximum_dice D: the mean over raters of the Dice of the member that is most like them.
    diversity_agreement A: 1 - (|dV_min| + |dV_max|) / 2 with V the variance over pixels of the difference of two masks of a
    set, V_min and V_max its extremes over pairs i != j (0 for a set of one), and d the members' less the raters'.
    collective_insight: 3 S D A / (S + D + A); 0 where all three are 0. It is no harmonic mean, though 1 only if all are.

    Rahman et al., CVPR 2023 (arXiv 2304.04745), as recalled: the formula was not checked against the paper, and of the
    variance other programs have other readings. V is taken over the whole image, so with small objects A is close to 1
    whatever the members are. Empty masks follow `overlap.EMPTY_RULE`.
    """
    check_sets(members, raters)
    sensitivity = overlap(*(np.logical_or.reduce(masks) for masks in (members, raters)))["recall"]
    dice = float(_dices(members, raters).max(0).mean())
    ours, theirs = _variances(members), _variances(raters)
    agreement = 1 - (abs(ours.min() - theirs.min()) + abs(ours.max() - theirs.max())) / 2
    total = sensitivity + dice + agreement
    return {
        "combined_sensitivity": sensitivity,
        "maximum_dice": dice,
        "diversity_agreement": float(agreement),
        "collective_insight": float(3 * sensitivity * dice * agreement / total) if total > 0 else 0.0,
    }


def diversity(members: Masks) -> float:
    """The mean of 1 - IoU over all pairs of different members, i != j, in [0, 1]: 0 if all are alike, and for a single one."""
    _check_set("members", members)
    n = len(members)
    return float((1 - ious(members, members)).sum() / (n * (n - 1))) if n > 1 else 0.0


def ious(first: Masks, second: Masks) -> NDArray[np.float64]:
    """The IoU of every mask of one set with every mask of the other: (n, *s), (r, *s) -> (n, r); 1 for two empty masks."""
    both, sizes = _counts(first, second)
    union = sizes - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def check_sets(members: Masks, raters: Masks) -> None:
    """Raises ValueError unless both are boolean, with at least one mask each, all of one shape."""
    _check_set("members", members)
    _check_set("raters", raters)
    if members.shape[1:] != raters.shape[1:]:
        raise ValueError(f"members have shape {members.shape[1:]} and raters {raters.shape[1:]}; want one shape: resample one of them")


def _check_set(name: str, masks: Masks) -> None:
    if masks.dtype != np.bool_:
        raise ValueError(f"{name} have dtype {masks.dtype}; want bool: compare first, e.g. {name} >= 0.5")
    if masks.ndim < 2 or masks.size == 0:
        raise ValueError(f"{name} have shape {masks.shape}; want (n, *s) with at least one mask and one pixel")


def _counts(first: Masks, second: Masks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """|A and B| and |A| + |B| of all pairs, (n, r); float64 counts pixels exactly."""
    a, b = (masks.reshape(len(masks), -1).astype(np.float64) for masks in (first, second))
    return a @ b.T, a.sum(1)[:, None] + b.sum(1)[None]


def _dices(first: Masks, second: Masks) -> NDArray[np.float64]:
    both, sizes = _counts(first, second)
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), 1.0)


def _variances(masks: Masks) -> NDArray[np.float64]:
    """Var over pixels of A - B, of all pairs i != j: E (A - B)^2 - (E A - E B)^2; one zero for a set of one."""
    if len(masks) == 1:
        return np.zeros(1)
    both, sizes = _counts(masks, masks)
    shares = masks.reshape(len(masks), -1).mean(1)
    found = (sizes - 2 * both) / masks[0].size - (shares[:, None] - shares[None]) ** 2
    return found[np.triu_indices(len(masks), 1)]
