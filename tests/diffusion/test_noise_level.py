"""Timesteps as noise levels: the table of the spec of diffusion pretraining, which was computed apart from this code."""

import math

import pytest

from somite.diffusion.noise_level import Window, noise_hu, timestep, timestep_at_hu, timestep_at_snr
from somite.diffusion.schedule import cosine, linear
from somite.errors import InputError

# t: HU of the noise for windows -1350 .. 1000, -1000 .. 1000, -175 .. 250 by the linear schedule, and for the first by the cosine one
TABLE = {
    0: (12, 10, 2, 8),
    5: (35, 30, 6, 21),
    10: (55, 47, 10, 32),
    30: (131, 112, 24, 70),
    60: (245, 209, 44, 126),
    100: (402, 342, 73, 201),
    200: (850, 724, 154, 397),
}
SNR = {0: 9999.0, 10: 454.9074797671889, 30: 80.36974828381021, 60: 22.993132065511652, 200: 1.909912080094787}
WINDOWS = (Window(), Window(-1000, 1000), Window(-175, 250))


@pytest.mark.parametrize(("t", "wanted"), TABLE.items())
def test_fact_8_noise_in_hounsfield_units(t, wanted):
    found = [*(noise_hu(linear(), t, window) for window in WINDOWS), noise_hu(cosine(), t, Window())]
    assert [round(value) for value in found] == [*wanted]


@pytest.mark.parametrize(("t", "snr"), SNR.items())
def test_and_back(t, snr):
    schedule = linear()
    assert timestep_at_snr(schedule, snr) == t
    assert all(timestep_at_hu(schedule, window.unit / math.sqrt(snr), window) == t for window in WINDOWS)
    assert schedule.snr(t) == pytest.approx(snr, rel=1e-9)


def test_rounded_levels_find_their_timestep_where_the_rounding_is_finer_than_the_steps():
    assert [timestep_at_hu(linear(), hu, Window()) for hu in (12, 35, 55, 131, 245, 402, 850)] == [0, 5, 10, 30, 60, 100, 200]


def test_in_zero_to_one_the_same_timestep_is_twice_as_noisy():
    assert noise_hu(linear(), 30, Window(span=1)) == pytest.approx(2 * noise_hu(linear(), 30, Window()))


@pytest.mark.parametrize(
    ("level", "t"), [("131 HU", 30), ("131hu", 30), ("80.4 SNR", 30), ("30", 30), (30, 30), ("1.31e2 HU", 30), ("1e9 hu", 999)]
)
def test_levels_as_users_write_them(level, t):
    assert timestep(level, linear(), Window()) == t


def test_a_schedule_that_ends_without_signal_has_a_last_timestep_of_infinite_noise():
    schedule = linear(zero_snr=True)
    assert noise_hu(schedule, 999, Window()) == math.inf
    assert timestep_at_snr(schedule, 1e-12) == 998


@pytest.mark.parametrize("level", ["", "-3", "1000", "2.5", "0 HU", "0 SNR", "5 dB", "HU"])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(InputError, match=r"level|timestep|ratio"):
        timestep(level, linear(), Window())
    with pytest.raises(InputError, match="holds nothing"):
        Window(5, 5)
