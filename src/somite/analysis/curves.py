"""Curves over noise levels: where to measure, and what rows become. Shared by the fingerprint and the analysis of a run."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..diffusion.schedule import Schedule
from ..errors import InputError
from ..metrics.intervals import Interval, interval
from ..tasks.task import Row


def log_snr(schedule: Schedule, t: int) -> float:
    return math.log(schedule.snr(t))


def grid(schedule: Schedule, count: int) -> list[int]:
    """About `count` increasing timesteps from 0 to T-1, half of them equally spaced in t and half in log-SNR.

    Both are needed: the linear schedule spends a quarter of its log-SNR on the first 26 of 1000 steps. A last step without
    any signal has no log-SNR and is left out.
    """
    last = len(schedule) - 1
    if last > 0 and schedule.snr(last) == 0:
        last -= 1
    if not 2 <= count <= last + 1:
        raise InputError(f"{count} timesteps asked for, but this schedule has {last + 1} with a signal; choose 2 to {last + 1}")
    u = np.array([log_snr(schedule, t) for t in range(last + 1)])
    even = np.rint(np.linspace(0, last, count - count // 2)).astype(int)
    equal = np.abs(u[:, None] - np.linspace(u[0], u[-1], count // 2 + 1)).argmin(0)
    return sorted({0, last, *even.tolist(), *equal.tolist()})


def means(rows: Sequence[Row], column: str, resamples: int = 1000) -> dict[int, Interval]:
    """The mean of a column over cases at each t, with a bootstrap over groups."""
    at: dict[int, list[Row]] = {}
    for row in rows:
        at.setdefault(int(row["t"]), []).append(row)
    return {t: interval([r[column] for r in some], [r["group"] for r in some], resamples=resamples) for t, some in sorted(at.items())}


def by_case(rows: Sequence[Row], value: Callable[[Row], float]) -> tuple[NDArray[np.float64], list[str], list[int]]:
    """(cases, timesteps) of a value, the cases' groups, and the timesteps in increasing order."""
    ts = sorted({int(row["t"]) for row in rows})
    cases = list(dict.fromkeys(row["case"] for row in rows))
    group = {row["case"]: row["group"] for row in rows}
    out = np.full((len(cases), len(ts)), np.nan)
    place, column = {case: i for i, case in enumerate(cases)}, {t: j for j, t in enumerate(ts)}
    for row in rows:
        out[place[row["case"]], column[int(row["t"])]] = value(row)
    return out, [group[case] for case in cases], ts


def half_point(u: NDArray[np.float64], share: NDArray[np.float64], level: float = 0.5) -> float:
    """The log-SNR at which a share first falls to `level`, coming from the noisy end; u increases.

    Linear between points; the last u where it never does, the first where it is below from the start.
    """
    below = np.flatnonzero(share <= level)
    if not len(below):
        return float(u[-1])
    i = int(below[0])
    if i == 0:
        return float(u[0])
    done = (share[i - 1] - level) / (share[i - 1] - share[i])
    return float(u[i - 1] + done * (u[i] - u[i - 1]))


def t_at(schedule: Schedule, u: float) -> float:
    """The timestep, with a fraction, of a log-SNR."""
    last = len(schedule) - 1
    known = [t for t in range(last + 1) if schedule.snr(t) > 0]
    return float(np.interp(-u, [-log_snr(schedule, t) for t in known], known))
