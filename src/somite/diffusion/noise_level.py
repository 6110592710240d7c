"""How noisy a timestep is, in words that do not depend on the schedule: as signal-to-noise ratio, and in Hounsfield units.

At t the noise's standard deviation is r_t = sigma_t / alpha_t of the signal's unit, SNR_t = 1 / r_t^2. Where brightness low .. high HU was
scaled to [-1, 1], that is r_t (high - low) / 2 in HU; where it was scaled to [0, 1], the same t is twice as noisy.
"""

import math
import re
from dataclasses import dataclass

from ..data import normalise
from ..errors import InputError
from .schedule import Schedule

LEVEL = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(?P<unit>hu|snr)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Window:
    """low, high: in HU. span: of what they are scaled to, 2 for [-1, 1] and 1 for [0, 1]."""

    low: float = -1350.0
    high: float = 1000.0
    span: float = 2.0

    def __post_init__(self) -> None:
        if not self.low < self.high or self.span <= 0:
            raise InputError(f"a window from {self.low:g} to {self.high:g} HU, scaled to a range of {self.span:g}, holds nothing")

    @property
    def unit(self) -> float:
        """HU of a step of 1 in what the network sees."""
        return (self.high - self.low) / self.span


def window_of(brightness: normalise.Normalise) -> Window | None:
    """Of data whose brightness is a CT window, scaled to [-1, 1]; None for others, as MR, which has no HU."""
    return Window(brightness.low, brightness.high) if isinstance(brightness, normalise.Window) else None


def noise_hu(schedule: Schedule, t: int, window: Window) -> float:
    """Standard deviation of the noise at t, in HU; infinite where no signal is left."""
    snr = schedule.snr(t)
    return window.unit / math.sqrt(snr) if snr > 0 else math.inf


def timestep_at_snr(schedule: Schedule, snr: float) -> int:
    """The timestep whose noise is nearest, as a ratio."""
    if not snr > 0:
        raise InputError(f"a signal-to-noise ratio is above 0, got {snr:g}")
    known = [(t, schedule.snr(t)) for t in range(len(schedule))]
    return min((abs(math.log(value / snr)), t) for t, value in known if value > 0)[1]


def timestep_at_hu(schedule: Schedule, hu: float, window: Window) -> int:
    """The timestep whose noise is nearest, as a ratio."""
    if not hu > 0:
        raise InputError(f"a noise level in HU is above 0, got {hu:g}")
    return timestep_at_snr(schedule, (window.unit / hu) ** 2)


def timestep(level: str | int, schedule: Schedule, window: Window) -> int:
    """Of a noise level as users write it: "131 HU", "80 SNR", or 30, a timestep by itself. Raises InputError for anything else."""
    found = LEVEL.fullmatch(str(level))
    if found is None:
        raise InputError(f"{level!r} is no noise level; write '131 HU', '80 SNR' or a timestep, such as 30")
    number, unit = float(found["number"]), (found["unit"] or "").lower()
    if unit:
        return timestep_at_hu(schedule, number, window) if unit == "hu" else timestep_at_snr(schedule, number)
    if number != int(number) or number >= len(schedule):
        raise InputError(f"timestep {level} is none of this schedule's, whole numbers from 0 to {len(schedule) - 1}")
    return int(number)
