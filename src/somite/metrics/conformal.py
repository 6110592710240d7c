"""Guarantees from calibration cases, without any assumption but that new cases come as those did.

Exchangeable are groups (patients), not cases: the loss of a group is the mean over its cases, and n counts groups. Both ways take the
losses of n groups for each of many settings, (n, settings), bounded by 1:

- Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022, arXiv 2208.02814, theorem 1). Losses that fall from setting
  to setting: the first setting with (n R_n + 1) / (n + 1) <= alpha, R_n the mean, has an *expected* loss of at most alpha on a new group,
  the mean taken over calibration sets too.
- Learn then test (Angelopoulos, Bates, Candes, Jordan and Lei 2021, arXiv 2110.01052). Any losses: settings are tested one after the
  other, each "its risk exceeds alpha" by a p-value that is valid for any distribution, and the first that is not rejected ends it (fixed
  sequence). With *probability* 1 - delta over calibration sets, all that were rejected have a risk of at most alpha.
"""

from collections.abc import Sequence
from math import ceil, floor, log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from scipy.stats import binom

ROUNDING = 1e-12


def grouped(losses: ArrayLike, groups: Sequence | NDArray) -> NDArray[np.float64]:
    """(cases, ...) -> (groups, ...): the mean over the cases of each that are not NaN; a group without such cases is left out."""
    values = np.asarray(losses, dtype=np.float64)
    told = ~np.isnan(values).reshape(len(values), -1).any(1)
    names, index = np.unique(np.asarray(groups)[told], return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, index, values[told])
    return sums / np.bincount(index, minlength=len(names)).reshape(-1, *[1] * (values.ndim - 1))


def controlled(losses: NDArray[np.float64], alpha: float) -> int | None:
    """Conformal risk control: the first setting that may be used, or None. losses (n, settings) in [0, 1] fall along each row.

    Raises ValueError for losses that rise, because then nothing is guaranteed.
    """
    values = _checked(losses)
    if (np.diff(values, axis=1) > ROUNDING).any():
        raise ValueError("losses rise from one setting to the next; conformal risk control wants them to fall")
    n = len(values)
    good = (values.sum(0) + 1) / (n + 1) <= alpha + ROUNDING
    return int(good.argmax()) if good.any() else None


def accepted(losses: NDArray[np.float64], alpha: float, delta: float) -> int | None:
    """Learn then test: the last setting that may be used, or None. losses (n, settings) in [0, 1], the most careful setting first."""
    values = _checked(losses)
    p = np.array([p_value(mean, len(values), alpha) for mean in values.mean(0)])
    rejected = np.logical_and.accumulate(p <= delta)
    return int(rejected.sum()) - 1 if rejected.any() else None


def width(errors: ArrayLike, groups: Sequence | NDArray, level: float) -> float | None:
    """How far around a foretold number in [0, 1] the true one lies, with probability `level` for a case of a new group; None where there
    are too few groups. errors (cases,) in [0, 1], of cases that the foretelling was not made from.

    Conformal risk control of being outside; of groups of one case each it is split conformal prediction (Vovk et al. 2005), of larger ones
    that of Lee, Barber and Willett 2023 (arXiv 2306.06342).
    """
    found = np.asarray(errors, dtype=np.float64)
    widths = np.unique(np.append(found, 1.0))
    place = controlled(grouped((found[:, None] > widths).astype(np.float64), groups), 1 - level)
    return None if place is None else float(widths[place])


def p_value(mean: float, n: int, alpha: float) -> float:
    """Hoeffding-Bentkus (Bates et al. 2021, arXiv 2101.02703): of "the expected loss exceeds alpha", for any losses in [0, 1].

    min(exp(-n kl(mean, alpha)), e P(Bin(n, alpha) <= ceil(n mean))), kl the divergence of two coins; 1 where mean >= alpha.
    """
    if mean >= alpha:
        return 1.0
    kl = xlogy(mean, mean / alpha) + xlogy(1 - mean, (1 - mean) / (1 - alpha))
    return float(min(np.exp(-n * kl), np.e * binom.cdf(ceil(n * mean - ROUNDING), n, alpha), 1.0))


def least_controlled(alpha: float) -> int:
    """How many groups conformal risk control takes at least: with fewer not even losses of 0 are enough."""
    return max(1, ceil(1 / alpha - 1 - ROUNDING))


def least_tested(alpha: float, delta: float) -> int:
    """The same of learn then test: as many as (1 - alpha)^n <= delta takes."""
    return max(1, floor(log(delta) / log(1 - alpha) - ROUNDING) + 1)


def _checked(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"losses have shape {values.shape}; want (groups, settings), at least one of each")
    if not np.all((values >= -ROUNDING) & (values <= 1 + ROUNDING)):
        raise ValueError(f"losses span [{values.min()}, {values.max()}]; want [0, 1]")
    return values
