"""Few inference timesteps, placed where the image is worth most. (For training timesteps: `diffusion.timesteps.ByBenefit`.)"""

from collections.abc import Sequence

import numpy as np

from ..diffusion.schedule import Schedule
from ..errors import InputError
from .curves import log_snr


def steps_by_benefit(t: Sequence[float], benefit: Sequence[float], schedule: Schedule, steps: int) -> list[int]:
    """`steps` decreasing timesteps, the first T-1, at equal quantiles of the cumulative benefit over log-SNR.

    With B(u) = int_{u_(T-1)}^u benefit du', step i stands where B is i / steps of the whole. `t` and `benefit` are knots as
    `benefit_knots` reads them; below zero counts as zero. Steps that would coincide move to the next free timestep.
    """
    total = len(schedule)
    if not 1 <= steps <= total:
        raise InputError(f"{steps} steps asked for, but this schedule has {total} timesteps; choose 1 to {total}")
    last = max(i for i in range(total) if schedule.snr(i) > 0)
    known = np.arange(last, -1, -1)  # from the noisy end, u increases
    u = np.array([log_snr(schedule, int(i)) for i in known])
    order = np.argsort(t)
    height = np.maximum(np.interp(known, np.asarray(t, np.float64)[order], np.asarray(benefit, np.float64)[order]), 0)
    area = np.concatenate([[0.0], (np.diff(u) * (height[1:] + height[:-1]) / 2).cumsum()])
    if area[-1] == 0:
        raise InputError("the image shows no benefit at any timestep; place the steps equally instead")
    rising = np.concatenate([[True], np.diff(area) > 0])
    at = np.interp(np.arange(1, steps) / steps, area[rising] / area[-1], u[rising])
    wanted = [total - 1, *np.rint(np.interp(at, u, known)).astype(int).tolist()]
    out: list[int] = []
    for i, one in enumerate(wanted):
        highest = total - 1 if i == 0 else out[-1] - 1
        out.append(max(min(one, highest), steps - 1 - i))
    return out
