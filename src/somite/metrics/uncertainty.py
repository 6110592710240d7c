"""How much the members of an ensemble disagree. Members are the first axis: (n, *s)."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from .overlap import overlap


def spread(members: NDArray) -> NDArray[np.float64]:
    """The standard deviation over members at each pixel: (n, *s) -> (*s), in the unit of the members, in [0, 0.5]
    for probabilities.

    The population form, sqrt(mean (x - mean x)^2): one member has spread 0. Raises ValueError without members.
    """
    _check_members(members, least=1)
    return np.std(members, axis=0, dtype=np.float64)


def nqm(members: NDArray) -> float:
    """The spread in proportion to what is segmented: NQM = sum_pixels std / sum_pixels mean, >= 0, lower is surer.

    "Neural quality metric" of M3D-NCA (Kalkhof and Mukhopadhyay 2023, arXiv 2309.02954). Members (n, *s) in [0, 1];
    0 if every member is empty. Raises ValueError for negative members or none.
    """
    _check_members(members, least=1)
    if members.size and members.min() < 0:
        raise ValueError(f"members reach down to {members.min()}; want masks or probabilities in [0, 1]")
    total = float(np.mean(members, axis=0, dtype=np.float64).sum())
    return float(spread(members).sum()) / total if total > 0 else 0.0


def entropy(probability: NDArray) -> NDArray[np.float64]:
    """The entropy of each pixel's Bernoulli distribution in nats, in [0, log 2]: -p log p - (1 - p) log(1 - p).

    Any shape. Raises ValueError for values outside [0, 1], NaN included.
    """
    p = np.asarray(probability, dtype=np.float64)
    _check_shares(p)
    return entr(p) + entr(1 - p)


def disagreement(members: NDArray[np.bool_]) -> float:
    """1 - the mean Dice over all pairs of member masks, in [0, 1]: 0 if all are alike, 1 if no two overlap.

    Boolean (n, *s); pairs of empty masks follow `overlap.EMPTY_RULE`. The quality estimate of Roy et al. 2019
    (there 'd_MC'), turned so that larger is less certain. Raises ValueError for fewer than two members.
    """
    _check_members(members, least=2)
    return 1.0 - float(np.mean([overlap(a, b)["dice"] for a, b in combinations(members, 2)]))


def expected_dice(probability: NDArray, mask: NDArray[np.bool_]) -> float:
    """The Dice that a mask would have, in [0, 1], if each pixel were foreground by its probability and independently of all others.

    The ratio of expectations 2 sum_mask p / (|mask| + sum p): the expectation itself up to terms that vanish with the size of the mask.
    An empty mask is right where the truth is empty too, which has the probability prod (1 - p). Any shape; raises ValueError as `entropy`.
    """
    p = np.asarray(probability, dtype=np.float64)
    _check_shares(p)
    size = int(np.count_nonzero(mask))
    if size == 0:
        return float(np.exp(np.log1p(-np.minimum(p, 1 - 1e-12)).sum()))
    return float(2 * p[mask].sum() / (size + p.sum()))


def disputed(members: NDArray) -> float:
    """The share of pixels on which any two members differ, in [0, 1]; it grows with the number of members.

    Masks or label maps (n, *s). Raises ValueError for fewer than two members.
    """
    _check_members(members, least=2)
    return float(np.mean(np.any(members[1:] != members[:1], axis=0)))


def _check_shares(p: NDArray[np.float64]) -> None:
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"probability spans [{p.min()}, {p.max()}]; want [0, 1]: apply a sigmoid or clip first")


def _check_members(members: NDArray, least: int) -> None:
    if members.ndim < 2 or len(members) < least:
        raise ValueError(f"members have shape {members.shape}; want (n, *s) with n >= {least}: draw more members")
