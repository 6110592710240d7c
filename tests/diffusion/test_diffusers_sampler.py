"""diffusers' schedulers through our door: our own samplers and a Gaussian in closed form are the truth."""

from itertools import pairwise

import pytest
import torch

from somite.contracts import SamplerContract
from somite.diffusion.diffusers_sampler import Diffusers
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import cosine, linear, scaled_linear
from somite.errors import InputError
from somite.rng import seeded
from somite.types import Output, Prediction

SECOND_ORDER = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"]
ALL = [*SECOND_ORDER, "DDIMScheduler", "EulerDiscreteScheduler", "LCMScheduler", "DDPMScheduler"]
MEAN, VARIANCE = 0.7, 0.25


def gaussian(schedule):
    """The exact denoiser of x0 ~ N(MEAN, VARIANCE)."""

    def denoise(x, t, state):
        a, s = schedule.at(int(t[0]))
        x0 = MEAN + a * VARIANCE / (a * a * VARIANCE + s * s) * (x - a * MEAN)
        return Prediction(x0, (x - a * x0) / s, Output(x0))

    return denoise


def wavy(schedule):
    """A nonlinear network that predicts x0."""

    def denoise(x, t, state):
        a, s = schedule.at(int(t[0]))
        x0 = torch.sin(2 * x + t[0] / 300)
        return Prediction(x0, (x - a * x0) / s, Output(x0))

    return denoise


def end(sampler, schedule, x, denoise=gaussian):
    *_, last = sampler.trajectory(denoise(schedule), schedule, x, 1.0)
    return last.x


def standard(count):
    """Noise whose mean and variance are exactly 0 and 1."""
    x = torch.randn(count, 1, 1, 1)
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("schedule", [linear(), scaled_linear(), cosine(100)])
def test_its_ddim_is_ours(steps, clip, schedule):
    x = torch.randn(2, 1, 8, 8)
    found = end(Diffusers("DDIMScheduler", steps, clip), schedule, x, wavy)
    torch.testing.assert_close(found, end(DDIM(steps, clip=clip), schedule, x, wavy), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 10, 100])
def test_its_ddpm_is_our_ancestral_sampler_with_the_same_noise(steps):
    x, schedule = torch.randn(2, 1, 8, 8), linear(100)
    ends = []
    for sampler in (Diffusers("DDPMScheduler", steps), Ancestral(steps)):
        with seeded(0, ["a", "b"]):
            ends.append(end(sampler, schedule, x, wavy))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-3)


def flowed(schedule):
    """Mean and variance of what the probability flow makes of N(0, 1): schedules end with a little signal, which it lacks."""
    a, s = schedule.at(len(schedule) - 1)
    scale = (VARIANCE / (a * a * VARIANCE + s * s)) ** 0.5
    return MEAN - scale * a * MEAN, scale**2


@pytest.mark.parametrize("name", SECOND_ORDER)
@pytest.mark.parametrize("schedule", [linear(), scaled_linear(), cosine(), linear(zero_snr=True)])
def test_second_order_solvers_carry_noise_to_a_gaussian(name, schedule):
    found = end(Diffusers(name, 250, clip=None), schedule, standard(2000), gaussian)
    mean, variance = flowed(schedule)
    assert float(found.mean()) == pytest.approx(mean, abs=0.01)
    assert float(found.var()) == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"), [("DDIMScheduler", 250, 0.04), ("EulerDiscreteScheduler", 250, 0.04), ("DDPMScheduler", 1000, 0.06)]
)
@pytest.mark.parametrize("schedule", [linear(), linear(zero_snr=True)])
def test_first_order_solvers_carry_noise_to_a_gaussian(name, steps, tolerance, schedule):
    found = end(Diffusers(name, steps, clip=None), schedule, standard(20_000), gaussian)
    mean, variance = flowed(schedule) if name != "DDPMScheduler" else (MEAN, VARIANCE)
    assert float(found.mean()) == pytest.approx(mean, abs=0.01)
    assert float(found.var()) == pytest.approx(variance, rel=tolerance)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_all_walk_from_the_last_timestep_and_end_near_the_last_estimate(name, zero_snr, steps):
    schedule = linear(zero_snr=zero_snr)
    walk = list(Diffusers(name, steps).trajectory(wavy(schedule), schedule, torch.randn(3, 1, 8, 8), 1.0))
    assert walk[0].t == 999
    assert walk[-1].t == -1
    assert all(a.t >= b.t for a, b in pairwise(walk))
    if steps == 1:
        torch.testing.assert_close(walk[-1].x, walk[0].pred.x0, rtol=0, atol=0.02)
    for step in walk:
        assert step.x.isfinite().all()
    assert float(walk[-1].x.abs().max()) <= 1.1  # estimates are clipped to 1


@pytest.mark.parametrize("name", ALL)
def test_what_the_network_sees_has_the_variance_that_it_was_trained_for(name):
    """Some schedulers walk x / alpha; a network that is never wrong must see alpha^2 v + sigma^2 throughout."""
    schedule = linear()
    for step in Diffusers(name, 20, clip=None).trajectory(gaussian(schedule), schedule, standard(5000)):
        if step.t >= 0 and name != "LCMScheduler":
            a, s = schedule.at(step.t)
            assert float(step.x.var()) == pytest.approx(a * a * VARIANCE + s * s, rel=0.4)


@pytest.mark.parametrize("name", ALL)
def test_a_member_is_the_same_in_any_batch(name):
    schedule, names, x = linear(), ["a", "b", "c", "d"], torch.randn(4, 1, 4, 4)

    def drawn(rows):
        with seeded(3, [names[i] for i in rows]):
            return end(Diffusers(name, 6), schedule, x[rows], wavy)

    together = drawn([0, 1, 2, 3])
    for rows in ([2], [3, 0]):
        torch.testing.assert_close(drawn(rows), together[rows], rtol=0, atol=1e-5)
    if name in ("DDPMScheduler", "LCMScheduler"):
        with seeded(4, names):
            assert not torch.allclose(end(Diffusers(name, 6), schedule, x, wavy), together)


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"])
def test_leading_timesteps_are_refused(name, spacing):
    sampler = Diffusers(name, 10, options={"timestep_spacing": spacing})
    if spacing == "linspace":  # starts at T-1 too
        assert next(iter(sampler.trajectory(wavy(linear()), linear(), torch.randn(1, 1, 2, 2)))).t == 999
        return
    with pytest.raises(InputError, match="T-1 = 999"):
        end(sampler, linear(), torch.randn(1, 1, 2, 2), wavy)


def test_options_reach_the_scheduler():
    built = Diffusers(options={"solver_order": 3, "use_karras_sigmas": True}).build(scaled_linear(50))
    assert (built.config.solver_order, built.config.use_karras_sigmas) == (3, True)
    assert (built.config.prediction_type, built.config.timestep_spacing) == ("v_prediction", "trailing")
    wanted = torch.tensor([scaled_linear(50).at(t)[0] ** 2 for t in range(50)])
    torch.testing.assert_close(built.alphas_cumprod, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(InputError, match="1 to 1000"):
        end(Diffusers("DDIMScheduler", steps), linear(), torch.randn(1, 1, 2, 2), wavy)


@pytest.mark.parametrize(("name", "options", "words"), [("NoSuch", {}, "NoSuch"), ("DDIMScheduler", {"odrer": 2}, "odrer")])
def test_misspelt_names_are_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        end(Diffusers(name, 5, options=options), linear(), torch.randn(1, 1, 2, 2), wavy)


class TestDPMSolver(SamplerContract):
    def make(self, steps, **options):
        return Diffusers("DPMSolverMultistepScheduler", steps, **options)


class TestDDPMOfDiffusers(SamplerContract):
    def make(self, steps, **options):
        return Diffusers("DDPMScheduler", steps, **options)
