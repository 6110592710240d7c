"""Truth: diffusers' schedulers fed with tables in double precision, and a Gaussian, for which all is known in closed form."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from somite.contracts import SamplerContract
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import cosine, linear, scaled_linear
from somite.errors import InputError
from somite.rng import seeded
from somite.types import Output, Prediction

MEAN, VARIANCE = 0.7, 0.25


@pytest.fixture
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def noise(x, t):
    """A nonlinear function that stands for a network."""
    return torch.sin(3 * x + t / 300)


def denoiser(schedule, clean=None):
    """A Prediction from `noise` (or from a function that gives x0) by the definition of x_t."""

    def denoise(x, t, state):
        a, s = schedule.at(int(t[0]))
        if clean is not None:
            x0 = clean(x, a, s)
            return Prediction(x0, (x - a * x0) / s, Output(x0))
        eps = noise(x, int(t[0]))
        return Prediction((x - s * eps) / a, eps, Output(eps, var=torch.cos(5 * x)))

    return denoise


def gaussian(schedule):
    """E[x0 | x_t] where x0 ~ N(MEAN, VARIANCE)."""
    return denoiser(schedule, lambda x, a, s: MEAN + a * VARIANCE / (a * a * VARIANCE + s * s) * (x - a * MEAN))


def end(sampler, schedule, x, denoise=None):
    *_, last = sampler.trajectory(denoise or denoiser(schedule), schedule, x, 1.0)
    return last.x


def doubled(reference):
    """The same scheduler with the linear betas in double precision: float32 tables would hide mistakes of 1e-3."""
    reference.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    reference.alphas = 1 - reference.betas
    reference.alphas_cumprod = torch.cumprod(reference.alphas, 0)
    return reference


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("steps", [1, 2, 10, 50, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0, 1.7])
def test_ddim_equals_diffusers(steps, eta, clip):
    options = {"clip_sample": True, "clip_sample_range": clip} if clip else {"clip_sample": False}
    reference = doubled(DDIMScheduler(1000, timestep_spacing="trailing", set_alpha_to_one=True, **options))
    reference.set_timesteps(steps)
    x = y = torch.randn(2, 1, 4, 4)
    torch.manual_seed(1)
    for t in reference.timesteps:
        y = reference.step(noise(y, int(t)), t, y, eta=eta, use_clipped_model_output=True).prev_sample
    torch.manual_seed(1)
    torch.testing.assert_close(end(DDIM(steps, eta, clip), linear(), x), y, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(("ours", "theirs"), [("small", "fixed_small"), ("large", "fixed_large"), ("learned", "learned_range")])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("steps", [1000, 10])
def test_ancestral_equals_diffusers(ours, theirs, clip, steps):
    reference = doubled(DDPMScheduler(1000, variance_type=theirs, clip_sample=clip is not None, timestep_spacing="trailing"))
    reference.set_timesteps(steps)
    x = y = torch.randn(2, 1, 4, 4)
    torch.manual_seed(1)
    walk = [y]
    for t in reference.timesteps:
        value = noise(y, int(t)) if ours != "learned" else torch.cat([noise(y, int(t)), torch.cos(5 * y)], 1)
        y = reference.step(value, t, y).prev_sample
        walk.append(y)
    torch.manual_seed(1)
    found = [step.x for step in Ancestral(steps, ours, clip).trajectory(denoiser(linear()), linear(), x)]
    if steps < 1000 and ours != "small":  # diffusers adds noise to the end of a respaced walk, because it tests t > 0
        found.pop(), walk.pop()
    torch.testing.assert_close(torch.stack(found), torch.stack(walk), rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("_double")
def test_placed_timesteps_are_walked_as_diffusers_walks_them():
    at = [999, 640, 610, 25, 0]
    reference = doubled(DDPMScheduler(1000, variance_type="fixed_small", clip_sample=True))
    reference.set_timesteps(timesteps=at)
    x = y = torch.randn(2, 1, 4, 4)
    torch.manual_seed(1)
    for t in reference.timesteps:
        y = reference.step(noise(y, int(t)), t, y).prev_sample
    sampler = Ancestral(5, placed=at)
    torch.manual_seed(1)
    found = list(sampler.trajectory(denoiser(linear()), linear(), x, 1.0))
    assert [step.t for step in found] == [*at, -1]
    torch.testing.assert_close(found[-1].x, y, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("at", [[999, 5, 5], [999, 5, 7], [999, -1], []])
def test_timesteps_that_do_not_decrease_are_not_placed(at):
    with pytest.raises(InputError, match="decreasing timesteps"):
        DDIM(3, placed=at)


def test_placed_timesteps_start_at_the_end_of_the_schedule():
    sampler = DDIM(2, placed=[998, 5])
    with pytest.raises(InputError, match="T-1 = 999"):
        list(sampler.trajectory(denoiser(linear()), linear(), torch.randn(1, 1, 4, 4)))


@pytest.mark.parametrize("schedule", [linear(), scaled_linear(), cosine(), linear(zero_snr=True)])
def test_ddim_converges_at_first_order_on_a_gaussian(schedule):
    """The probability flow maps a N(0, 1) quantile z at T to the same quantile of the target."""
    a, s = schedule.at(len(schedule) - 1)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None, None]
    start, exact = a * MEAN + (a * a * VARIANCE + s * s) ** 0.5 * z, MEAN + VARIANCE**0.5 * z
    errors = [float((end(DDIM(n, clip=None), schedule, start, gaussian(schedule)) - exact).abs().max()) for n in (25, 50, 100, 200)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 0.02
    assert (abs(orders - 1) < 0.25).all(), (errors, orders)


@pytest.mark.parametrize("sampler", [Ancestral(1000, "small", None), Ancestral(1000, "large", None), DDIM(1000, 1.0, None)])
@pytest.mark.parametrize("schedule", [linear(), cosine()])
def test_stochastic_samplers_reproduce_a_gaussian(sampler, schedule):
    found = end(sampler, schedule, torch.randn(20_000, 1, 1, 1), gaussian(schedule))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.var()) == pytest.approx(VARIANCE, rel=0.05)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 11, 50, 333, 1000])
@pytest.mark.parametrize("schedule", [linear(), scaled_linear(), cosine()])
def test_the_true_noise_leads_back_to_the_target(schedule, steps):
    """Fact A14: deterministic DDIM with the true eps returns the mask, whatever the spacing."""
    mask = (torch.rand(2, 1, 4, 4, dtype=torch.float64) > 0.5).double()
    eps = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    a, s = schedule.at(len(schedule) - 1)

    def denoise(x, t, state):
        a, s = schedule.at(int(t[0]))
        return Prediction((x - s * eps) / a, eps, Output(eps))

    torch.testing.assert_close(end(DDIM(steps, clip=None), schedule, a * mask + s * eps, denoise), mask, rtol=0, atol=1e-9)


ONE = [DDIM(1), DDIM(1, eta=1.0), DDIM(1, clip=None), Ancestral(1), Ancestral(1, "large"), Ancestral(1, "learned")]


@pytest.mark.parametrize("sampler", ONE)
@pytest.mark.parametrize("schedule", [linear(), linear(100), cosine(20)])
def test_one_step_is_taken_from_the_last_timestep_and_ends_at_the_clean_estimate(sampler, schedule):
    asked = []

    def denoise(x, t, state):
        asked.append(t.tolist())
        return denoiser(schedule)(x, t, state)

    first, last = sampler.trajectory(denoise, schedule, torch.randn(3, 1, 4, 4, dtype=torch.float64), 1.0)
    assert asked == [[len(schedule) - 1] * 3]
    assert (first.t, last.t) == (len(schedule) - 1, -1)
    torch.testing.assert_close(last.x, first.pred.x0, rtol=1e-9, atol=1e-9)
    assert sampler.clip is None or float(last.x.abs().max()) <= 1 + 1e-9


@pytest.mark.parametrize("kind", [DDIM, Ancestral])
def test_timesteps_are_trailing(kind):
    for total in (1000, 100, 37):
        for steps in range(1, total + 1):
            ts = kind(steps).timesteps(total)
            assert ts[0] == total - 1
            assert ts[-1] >= 0
            assert len(ts) == steps
            assert (np.diff(ts) < 0).all()
    for steps in (1, 2, 4, 5, 10, 50, 100, 1000):  # diffusers' definition, where it is exact
        assert kind(steps).timesteps(1000) == (np.round(np.arange(1000, 0, -1000 / steps)) - 1).astype(int).tolist()


@pytest.mark.parametrize("kind", [DDIM, Ancestral])
@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(kind, steps):
    with pytest.raises(InputError, match="1 to 1000"):
        end(kind(steps), linear(), torch.randn(1, 1, 2, 2))


def test_learned_variance_needs_one():
    with pytest.raises(InputError, match="variance"):
        end(Ancestral(10, "learned"), linear(), torch.randn(1, 1, 2, 2), gaussian(linear()))


@pytest.mark.parametrize("sampler", [DDIM(7), DDIM(7, eta=1.0), Ancestral(7), Ancestral(7, "large"), Ancestral(7, "learned")])
def test_a_member_is_the_same_in_any_batch(sampler):
    schedule, names = linear(), ["a/0", "a/1", "b/0", "b/1", "b/2"]
    x = torch.randn(5, 1, 4, 4)

    def drawn(rows):
        with seeded(3, [names[i] for i in rows]):
            return end(sampler, schedule, x[rows])

    together = drawn([0, 1, 2, 3, 4])
    for rows in ([2], [4, 0], [3, 1, 2]):
        torch.testing.assert_close(drawn(rows), together[rows], rtol=0, atol=1e-6)
    if getattr(sampler, "eta", 1.0):
        with seeded(4, names):
            assert not torch.allclose(end(sampler, schedule, x), together)


def test_clipping_makes_noise_and_estimate_agree():
    schedule = linear()
    for step in DDIM(5, clip=0.5).trajectory(denoiser(schedule), schedule, torch.randn(2, 1, 4, 4)):
        assert float(step.pred.x0.abs().max()) <= 0.5
        if step.t >= 0:
            a, s = schedule.at(step.t)
            torch.testing.assert_close(a * step.pred.x0 + s * step.pred.eps, step.x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inherit", [True, False])
def test_a_state_is_handed_on_only_if_asked(inherit):
    seen = []

    def denoise(x, t, state):
        seen.append(state)
        return Prediction(x, x, Output(x, state=int(t[0])))

    list(DDIM(3, inherit_state=inherit).trajectory(denoise, linear(30), torch.randn(1, 1, 2, 2)))
    assert seen == ([None, 29, 19] if inherit else [None] * 3)


def test_iterating_leaves_gradients_on_for_the_caller():
    weight = torch.ones(1, requires_grad=True)

    def denoise(x, t, state):
        return Prediction(x * weight, x, Output(x))

    for step in DDIM(3).trajectory(denoise, linear(), torch.randn(1, 1, 2, 2)):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad


class TestDDIM(SamplerContract):
    def make(self, steps, **options):
        return DDIM(steps, **options)


class TestNoisyDDIM(SamplerContract):
    def make(self, steps, **options):
        return DDIM(steps, eta=1.0, **options)


class TestAncestral(SamplerContract):
    def make(self, steps, **options):
        return Ancestral(steps, **options)
