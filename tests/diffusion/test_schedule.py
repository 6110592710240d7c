"""Truth: diffusers' schedules, and the closed-form table of the design (specs/04, 7.1)."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import Schedule, cosine, linear, scaled_linear
from somite.errors import InputError
from somite.types import Network


def alpha_bar(schedule):
    return torch.tensor([schedule.at(t)[0] ** 2 for t in range(len(schedule))], dtype=torch.float64)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (linear(), DDPMScheduler(1000)),
        (linear(start=0.0005, end=0.03), DDPMScheduler(1000, beta_start=0.0005, beta_end=0.03)),
        (linear(100), DDPMScheduler(100, trained_betas=np.linspace(1e-3, 0.2, 100).tolist())),
        (linear(250), DDPMScheduler(250, trained_betas=np.linspace(4e-4, 0.08, 250).tolist())),
        (scaled_linear(), DDPMScheduler(1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)),
        (cosine(), DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")),
        (cosine(50), DDPMScheduler(50, beta_schedule="squaredcos_cap_v2")),
        (linear(zero_snr=True), DDPMScheduler(1000, rescale_betas_zero_snr=True)),
        (
            scaled_linear(zero_snr=True),
            DDIMScheduler(1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True),
        ),
    ],
)
def test_equals_diffusers(ours, theirs):
    torch.testing.assert_close(alpha_bar(ours)[:-1], theirs.alphas_cumprod.double()[:-1], rtol=2e-4, atol=1e-6)
    assert ours.at(len(ours) - 1)[0] ** 2 == pytest.approx(float(theirs.alphas_cumprod[-1]), abs=1e-7)


@pytest.mark.parametrize(
    ("schedule", "last", "crossings", "ends"),
    [
        (linear(), 4.0358e-5, (26, 92, 258, 484, 674, 825), (9.210, -10.118)),
        (linear(100), 2.0390e-5, (2, 9, 25, 47, 65, 80), (6.907, -10.800)),
        (cosine(), 2.43e-9, (55, 188, 495, 802, 935, 979), (10.095, -19.836)),
    ],
)
def test_table_7_1(schedule, last, crossings, ends):
    assert schedule.at(len(schedule) - 1)[0] ** 2 == pytest.approx(last, rel=1e-3)
    log_snr = np.log([schedule.snr(t) for t in range(len(schedule))])
    nearest = [int(np.abs(log_snr - math.log(level)).argmin()) for level in (100, 10, 1, 0.1, 0.01, 0.001)]
    assert tuple(nearest) == crossings
    assert (log_snr[0], log_snr[-1]) == pytest.approx(ends, abs=5e-4)


def test_alpha_bar_of_linear_1000():
    found = [linear().at(t)[0] ** 2 for t in (50, 100, 250, 500, 750)]
    assert found == pytest.approx([0.969951, 0.895142, 0.521423, 0.077797, 0.003300], abs=1e-6)


@pytest.mark.parametrize(("steps", "first", "last"), [(1000, 0.9999, 4.036e-5), (100, 0.999, 2.039e-5)])
def test_fact_a14_ends(steps, first, last):
    schedule = linear(steps)
    assert schedule.at(0)[0] ** 2 == pytest.approx(first, abs=1e-9)
    assert schedule.at(steps - 1)[0] ** 2 == pytest.approx(last, rel=5e-4)


@pytest.mark.parametrize("schedule", [linear(), linear(37), scaled_linear(), cosine(), cosine(zero_snr=True), linear(zero_snr=True)])
def test_identities(schedule):
    total = len(schedule)
    pairs = [schedule.at(t) for t in range(-1, total)]
    assert pairs[0] == (1.0, 0.0)
    assert all(a * a + s * s == pytest.approx(1, abs=1e-12) for a, s in pairs)
    snr = [schedule.snr(t) for t in range(total)]
    assert all(a > b for a, b in pairwise(snr))
    alpha, sigma = schedule(torch.arange(-1, total))
    torch.testing.assert_close(torch.stack([alpha, sigma], 1), torch.tensor(pairs), rtol=1e-6, atol=1e-7)
    again = Schedule(torch.tensor(schedule.betas, dtype=torch.float64))
    torch.testing.assert_close(alpha_bar(again), alpha_bar(schedule), rtol=1e-9, atol=1e-12)


def test_a_batch_has_its_own_timesteps():
    alpha, _ = linear()(torch.tensor([999, 0]))
    assert alpha.tolist() == pytest.approx([4.0358e-5**0.5, 0.9999**0.5], rel=1e-4)


@pytest.mark.parametrize("steps", [19, 10, 2])
def test_too_few_linear_steps_are_refused(steps):
    with pytest.raises(InputError, match="beta") as error:
        linear(steps)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("betas", [[0.1, 1.0, 0.1], [0.0, 0.1], [-0.1, 0.1], [0.1, 1.1]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(InputError, match="beta"):
        Schedule(torch.tensor(betas, dtype=torch.float64))


class Nothing(Network):
    def forward(self, x, t, cond, state=None):
        raise AssertionError


def test_noise_prediction_is_refused_where_the_last_step_has_no_signal():
    schedule = linear(zero_snr=True)
    assert schedule.at(999) == (0.0, 1.0)
    with pytest.raises(InputError, match="zero_snr"):
        Diffusion(Nothing(), schedule, {}, DDIM(1), predicts="eps")
    for predicts in ("v", "x0", "logits"):
        Diffusion(Nothing(), schedule, {}, DDIM(1), predicts=predicts)
    Diffusion(Nothing(), linear(), {}, DDIM(1), predicts="eps")
