"""How sure a mean over cases is, when cases of one patient are alike.

Cluster bootstrap (Davison and Hinkley 1997, section 3.8): draw G of the G groups with replacement, keep their cases
together, and take the statistic of what was drawn; the interval lies between percentiles of many such draws. A draw
enters only through how often each group came up, a multinomial vector w, so all draws of sums are one product
w (resamples, G) @ sums (G, ...). Groups are sorted first: the answer depends on the seed, not on the order of rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ROOM = 2_000_000  # weights of cases that are held at once


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile interval; low and high are NaN if there is one group, which shows no spread."""

    mean: float
    low: float
    high: float
    cases: int
    groups: int


def as_json(found: Interval) -> dict[str, Any]:
    """NaN becomes None, which JSON has a word for."""
    values = {"mean": found.mean, "low": found.low, "high": found.high, "cases": found.cases, "groups": found.groups}
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class Paired:
    """A same-case difference; p_value is two-sided."""

    difference: Interval
    p_value: float


def interval(
    values: ArrayLike,
    groups: Sequence | NDArray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean over cases with its cluster-bootstrap interval: values (cases,), groups (cases,) such as patients.

    Each draw is sum of the drawn groups' values / number of their cases, so groups of unequal size count by cases, as
    they do in the mean. With one group low = high = NaN. Raises ValueError for NaN, unequal lengths, no case, a level
    outside (0, 1), or resamples < 1.
    """
    numbers = _cases(values)
    parts = np.stack((numbers, np.ones_like(numbers)), axis=1)  # (cases, 2)
    sums, draws = _bootstrap(parts, groups, resamples, seed)
    return _interval(float(numbers.mean()), draws[:, 0] / draws[:, 1], level, len(numbers), len(sums))


def pooled_interval(
    parts: ArrayLike,
    groups: Sequence | NDArray,
    statistic: Callable[[NDArray[np.float64]], float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of the *sum* of cases with its cluster-bootstrap interval: parts (cases, ...), groups (cases,).

    For what is no mean over cases, such as the pooled ECE: parts = [b.array() for b in bins of each case] and
    statistic = lambda total: ece(Bins(*total)). `mean` is the statistic of all cases. ECE-like statistics are biased
    upwards on a draw, and the interval with them. With one group low = high = NaN. Raises ValueError as `interval`
    does, and if the statistic is NaN for some draw.
    """
    array = np.asarray(parts, dtype=np.float64)
    sums, draws = _bootstrap(array, groups, resamples, seed)
    found = np.array([float(statistic(draw)) for draw in draws])
    return _interval(float(statistic(sums.sum(axis=0))), found, level, len(array), len(sums))


def reweighted_interval(
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    groups: Sequence | NDArray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A measure of weighted cases with its cluster-bootstrap interval: weights (draws, cases) -> (draws,).

    For what is made neither of means nor of sums, such as an area under a curve. A draw for which the measure is NaN (no case of a class
    was drawn) is left out; where the measure of all cases is NaN, so is everything. With one group low = high = NaN.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    count, cases = len(names), len(index)
    mean = float(measure(np.ones((1, cases)))[0])
    if count == 1 or np.isnan(mean):
        return Interval(mean, np.nan, np.nan, cases, count)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    step = max(1, ROOM // cases)  # of a large set a few draws at a time
    found = np.concatenate([measure(weights[at : at + step, index].astype(np.float64)) for at in range(0, resamples, step)])
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), cases, count)


def paired(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence | NDArray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Is a better than b on the same cases? The mean of a - b with its interval, and a two-sided p-value.

    a, b and groups are (cases,). The p-value is Wilcoxon's signed-rank test on the groups' mean differences, one per
    group, since cases of a group are not independent (each group counts once there, but by its cases in the mean);
    zero differences are dropped, and if all are zero p = 1. Raises ValueError as `interval` does.
    """
    first, second = _cases(a), _cases(b)
    if first.shape != second.shape:
        raise ValueError(f"a has {first.size} cases and b {second.size}; want the same cases in the same order")
    difference = first - second
    result = interval(difference, groups, level, resamples, seed)
    # Rounding keeps 0.3 - 0.2 and 0.2 - 0.1 tied in rank.
    means = np.round(_sums(difference, groups) / _sums(np.ones_like(difference), groups), 12)
    p_value = float(np.asarray(stats.wilcoxon(means))[1]) if means.any() else 1.0
    return Paired(result, p_value)


def holm(p_values: Sequence[float] | NDArray) -> list[float]:
    """The p-values adjusted for their number, in the order given (Holm 1979): below 0.05 means significant at 0.05
    with a family-wise error rate of 0.05 over the whole list.

    In ascending order, adjusted_i = max over j <= i of min(1, (m - j + 1) p_j). Raises ValueError outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p_values are {p_values}; want a list of numbers in [0, 1]")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted.tolist()


def _cases(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"values have shape {numbers.shape}; want one number per case")
    return numbers


def _sums(parts: NDArray[np.float64], groups: Sequence | NDArray) -> NDArray[np.float64]:
    """(cases, ...) -> (groups, ...), in the sorted order of the groups."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), *parts.shape[1:]))
    np.add.at(sums, index, parts)
    return sums


def _bootstrap(
    parts: NDArray[np.float64], groups: Sequence | NDArray, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of each group (groups, ...) and of each draw of groups (resamples, ...)."""
    if len(parts) == 0 or np.shape(groups) != (len(parts),):
        raise ValueError(f"{len(parts)} cases and groups of shape {np.shape(groups)}; want one group for each case")
    if np.isnan(parts).any():
        raise ValueError("a case's value is NaN; want a number for every case: mend the metric or drop the case")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; want at least 1, and 2000 for a stable interval")
    sums = _sums(parts, groups)
    count = len(sums)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return sums, np.tensordot(weights.astype(np.float64), sums, axes=1)


def _interval(mean: float, draws: NDArray[np.float64], level: float, cases: int, groups: int) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; want a share in (0, 1), such as 0.95")
    if np.isnan(mean) or np.isnan(draws).any():
        raise ValueError("the statistic is NaN for some draw of groups; give one that is defined for every draw")
    if groups == 1:
        return Interval(mean, np.nan, np.nan, cases, groups)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), cases, groups)
