"""The closed forms, against published tables of this project's spec, Monte Carlo, and each other."""

import json
import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare

from somite.analysis import oracles
from somite.analysis.oracles import (
    MarkovRows,
    MaskSet,
    Pixels,
    Template,
    Texture,
    as_denoiser,
    at_snr,
    benefit,
    entropy,
    information,
    last_readable,
    measured_mmse,
    pixel_mmse,
    texture_loss_eps,
    with_image,
)  # fmt: skip
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import cosine, linear
from somite.rng import seeded

REFERENCE = Path(__file__).parents[1] / "reference" / "analysis"
U = np.linspace(-14, 9, 300)


def disc(radius, size=32):
    y, x = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2, indexing="ij")
    return 2 * (x**2 + y**2 <= radius**2).double() - 1


def reference(name):
    return json.loads((REFERENCE / name).read_text())


@pytest.mark.parametrize(
    ("p", "gamma", "value"), [(0.5, 1.51, 0.4795), (0.3, 1.53, 0.4269), (0.2, 1.58, 0.3553), (0.1, 1.70, 0.2385), (0.05, 1.83, 0.1508)]
)
def test_the_peak_of_independent_pixels(p, gamma, value):
    grid = np.arange(0.5, 4, 0.002)
    loss = grid * pixel_mmse(grid, p)
    assert grid[loss.argmax()] == pytest.approx(gamma, abs=0.02)
    assert loss.max() == pytest.approx(value, abs=1e-4)
    assert pixel_mmse(1e-9, p) == pytest.approx(4 * p * (1 - p), rel=1e-6)


def test_independent_pixels_on_the_linear_schedule():
    schedule = linear(1000)
    table = {
        50: 1e-6,
        100: 0.045641,
        150: 0.305647,
        200: 0.467384,
        250: 0.460112,
        300: 0.376755,
        400: 0.192684,
        500: 0.077773,
        600: 0.025567,
        800: 0.001508,
        999: 4.0e-5,
    }
    for t, value in table.items():
        assert schedule.snr(t) * pixel_mmse(schedule.snr(t), 0.5) == pytest.approx(value, abs=1e-6)
    short = linear(100)
    table = {5: 8e-6, 10: 0.065839, 15: 0.335683, 20: 0.474341, 25: 0.450055, 30: 0.359338, 50: 0.066653}
    for t, value in table.items():
        assert short.snr(t) * pixel_mmse(short.snr(t), 0.5) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "amplitude", "peak"), [(linear(1000), 1, 220), (linear(1000), 0.5, 119), (linear(100), 1, 21), (cosine(1000), 1, 430)]
)
def test_masks_have_one_interior_peak_and_almost_no_early_loss(schedule, amplitude, peak):
    gamma = np.array([schedule.snr(t) for t in range(len(schedule))])
    loss = gamma * pixel_mmse(gamma, 0.5, amplitude)
    assert abs(int(loss.argmax()) - peak) <= 1
    rising = np.diff(loss) > 0
    first = int(np.flatnonzero(loss > 1e-12)[0])
    assert rising[first : peak - 2].all()
    assert not rising[peak + 2 :].any()
    if len(schedule) == 1000 and amplitude == 1 and peak == 220:
        assert loss[:51].max() < 1e-2 * loss.max()


def test_textures_lose_monotonically():
    spectrum = spectral()
    gamma = np.array([linear(1000).snr(t) for t in range(1000)])
    loss = texture_loss_eps(gamma, spectrum)
    assert (np.diff(loss) < 0).all()
    g = np.array([0.03, 1.0, 30.0])
    mean, error = measured_mmse(Texture(spectrum), g, 200)
    assert (np.abs(g * mean - texture_loss_eps(g, spectrum)) < 3 * g * error).all()


def spectral(size=16):
    f = torch.fft.fftfreq(size)
    return 4 / (1 + 200 * (f[:, None] ** 2 + f[None] ** 2))


@pytest.mark.parametrize("p", [0.5, 0.2, 0.05])
def test_pixels_against_monte_carlo_and_in_both_units(p):
    oracle, schedule = Pixels(p, (32, 32)), linear(1000)
    ts = (100, 250, 500, 900)
    means, errors = measured_mmse(oracle, [schedule.snr(t) for t in ts], 300)
    for t, mean, error in zip(ts, means, errors, strict=True):
        alpha, sigma = schedule.at(t)
        assert mean == pytest.approx(float(pixel_mmse(schedule.snr(t), p)), abs=3 * error)
        with seeded(0, ["x"]):
            x0 = oracle.draw(1)
        eps = torch.randn(1, 32, 32, dtype=torch.float64)
        pred = as_denoiser(oracle, schedule)((alpha * x0 + sigma * eps)[:, None], torch.tensor([t]), None)
        loss_x0, loss_eps = ((pred.x0[:, 0] - x0) ** 2).mean(), ((pred.eps[:, 0] - eps) ** 2).mean()
        assert float(loss_eps) == pytest.approx(schedule.snr(t) * float(loss_x0), rel=1e-5)


def test_zero_one_masks_are_signed_masks_at_a_quarter_of_the_snr():
    unit, signed = Pixels(0.2, (8, 8), low=0.0), Pixels(0.2, (8, 8))
    gamma = np.geomspace(1e-3, 1e2, 20)
    assert pixel_mmse(gamma, 0.2, 0.5) == pytest.approx(pixel_mmse(gamma / 4, 0.2) / 4, rel=1e-12)
    alpha, sigma = at_snr(1.7)
    x = torch.randn(3, 8, 8, dtype=torch.float64)
    # x -> (x + 1) / 2 of the clean mask is x_t -> (x_t + alpha) / 2 at twice the noise for the signed one
    doubled = unit.denoise((x + alpha) / 2, alpha, sigma / 2)
    assert torch.allclose(doubled, (signed.denoise(x, alpha, sigma) + 1) / 2, atol=1e-12)
    assert torch.allclose(doubled, torch.sigmoid(4 * (alpha * (x + alpha) / 2 - alpha**2 / 2) / sigma**2 + math.log(0.25)), atol=1e-12)
    (mean,), (error,) = measured_mmse(unit, [2.0], 400)
    assert mean == pytest.approx(float(pixel_mmse(0.5, 0.2)) / 4, abs=3 * error)


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1, 0.05])
def test_the_area_under_the_eps_loss_is_twice_the_entropy(p):
    loss = np.exp(U) * pixel_mmse(np.exp(U), p)
    gained = information(U, loss)
    assert gained[-1] == pytest.approx(entropy(p), rel=1e-4)
    assert (np.diff(gained) >= 0).all()


@pytest.mark.parametrize(
    ("t", "share", "amplitude"), [(148, 0.9, 1), (254, 0.5, 1), (447, 0.1, 1), (75, 0.9, 0.5), (141, 0.5, 0.5), (309, 0.1, 0.5)]
)
def test_information_kept_by_fair_pixels(t, share, amplitude):
    loss = np.exp(U) * pixel_mmse(np.exp(U), 0.5, amplitude)
    kept = np.interp(math.log(linear(1000).snr(t)), U, information(U, loss)) / math.log(2)
    assert kept == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("flip", [0.5, 0.2, 0.05])
def test_markov_rows_by_forward_and_backward(flip):
    oracle, known = MarkovRows(flip, flip, (8, 64)), reference("analytic_markov_chain.json")[str(flip)]
    gammas = np.array(known["snr"][::2])
    mmse, _ = measured_mmse(oracle, gammas, 80)
    assert mmse == pytest.approx(np.array(known["mmse"][::2]), abs=0.03)
    exact = (math.log(2) + 63 * entropy(flip)) / 64  # the first pixel of a row is a fair coin
    assert information(np.log(gammas), gammas * mmse)[-1] == pytest.approx(exact, rel=0.02)
    assert oracle.entropy == pytest.approx(entropy(flip))


def test_markov_rows_against_all_sequences():
    oracle = MarkovRows(0.1, 0.3, (6,))
    sequences = torch.tensor([[1 if (i >> j) & 1 else -1 for j in range(6)] for i in range(64)]).double()
    step = {(-1, 1): 0.1, (-1, -1): 0.9, (1, -1): 0.3, (1, 1): 0.7}
    prior = torch.tensor([(0.25 if s[0] > 0 else 0.75) * math.prod(step[int(a), int(b)] for a, b in pairwise(s)) for s in sequences])
    alpha, sigma = at_snr(0.8)
    x = torch.randn(5, 6, dtype=torch.float64)
    likelihood = torch.exp(-((x[:, None] - alpha * sequences) ** 2).sum(-1) / (2 * sigma**2)) * prior
    assert torch.allclose(oracle.denoise(x, alpha, sigma), likelihood @ sequences / likelihood.sum(1, keepdim=True), atol=1e-10)
    with seeded(0, ["m"]):
        drawn = MarkovRows(0.1, 0.3, (200, 200)).draw(1)
    assert float((drawn > 0).double().mean()) == pytest.approx(0.25, abs=0.01)


@pytest.fixture(scope="module")
def discs():
    known = reference("analytic_disc_translation_32x32.json")
    out = {}
    for radius in ("1.5", "3", "6", "10"):
        oracle = Template(disc(float(radius)))
        gammas = np.array(known[radius]["snr"][10:46])
        # fresh draws at each gamma: the errors of an area then cancel
        found = [measured_mmse(oracle, [gamma], 400, seed) for seed, gamma in enumerate(gammas)]
        out[radius] = gammas, np.array(found)[..., 0].T, known[radius]
    return out


@pytest.mark.parametrize(
    ("radius", "pixels", "half", "t"), [("1.5", 9, 0.369, 357), ("3", 29, 0.103, 482), ("6", 113, 0.0221, 614), ("10", 317, 0.0073, 696)]
)
def test_translated_discs(discs, radius, pixels, half, t):
    gammas, measured, known = discs[radius]
    assert int((disc(float(radius)) > 0).sum()) == pixels == known["n"]
    mmse, error = measured
    theirs = np.array(known["mmse"][10:46])
    clear = theirs > 0.05 * known["prior_mse"]  # beyond, a few rare draws make the mean
    assert (np.abs(mmse - theirs)[clear] < 4 * np.sqrt(3) * error[clear]).all()  # theirs are from half as many draws
    found = np.exp(np.interp(-known["prior_mse"] / 2, -mmse, np.log(gammas)))
    assert found == pytest.approx(half, rel=0.2)
    assert abs(np.interp(-math.log(found), [-math.log(linear(1000).snr(i)) for i in range(1000)], range(1000)) - t) < 25
    assert 1024 * information(np.log(gammas), gammas * mmse)[-1] == pytest.approx(math.log(1024), rel=0.02)


def test_small_objects_are_lost_at_less_noise(discs):
    halves = [float(np.interp(-known["prior_mse"] / 2, -m[0], np.log(g))) for g, m, known in discs.values()]
    assert halves == sorted(halves, reverse=True)
    assert np.diff(halves).max() < -0.5


def test_a_template_is_the_set_of_its_shifts():
    mask = disc(2, 8)
    mask[0, 1] = 1  # not its own mirror image
    shifts = torch.stack([mask.roll((i, j), (0, 1)) for i in range(8) for j in range(8)])
    x = torch.randn(4, 8, 8, dtype=torch.float64)
    assert torch.allclose(Template(mask).denoise(x, *at_snr(0.5)), MaskSet(shifts).denoise(x, *at_snr(0.5)), atol=1e-9)


def test_a_set_of_masks_with_any_values_by_hand():
    masks, x, (alpha, sigma) = torch.rand(5, 3, 3).double(), torch.randn(2, 3, 3).double(), at_snr(4.0)
    weights = torch.softmax(-((x[:, None] - alpha * masks) ** 2).sum((2, 3)) / (2 * sigma**2), 1)
    assert torch.allclose(MaskSet(masks).denoise(x, alpha, sigma), torch.einsum("bk,khw->bhw", weights, masks), atol=1e-12)


def test_blocks_of_n_pixels_are_a_pixel_at_n_times_the_snr():
    # three blocks of 4 equal pixels each: all 8 masks
    masks = torch.tensor([[1.0 if (i >> b) & 1 else -1.0 for b in range(3) for _ in range(4)] for i in range(8)])
    (mean,), (error,) = measured_mmse(MaskSet(masks), [0.3], 4000)
    assert mean == pytest.approx(float(pixel_mmse(1.2, 0.5)), abs=3 * error)
    assert error < 0.01


@pytest.mark.parametrize(
    ("schedule", "amplitude", "table"),
    [
        (linear(1000), 1, [94, 252, 353, 468, 571, 678, 772, 856, 933]),
        (linear(1000), 0.5, [45, 140, 219, 332, 446, 571, 678, 772, 856]),
        (linear(100), 1, [8, 24, 34, 45, 55, 65, 74, 82, 89]),
        (cosine(1000), 1, [191, 485, 643, 786, 876, 937, 968, 983, 991]),
    ],
)
def test_the_last_readable_timestep(schedule, amplitude, table):
    assert [last_readable(schedule, n, amplitude) for n in (1, 9, 25, 81, 256, 1024, 4096, 16384, 65536)] == table


def test_signal_to_noise_ratios_add():
    """An image y = sqrt(eta) x0 + n is worth eta: the exact posterior given both, on discs, against the closed relation."""
    oracle, eta, size = Template(disc(3, 16)), 0.1, 600
    with seeded(0, ["x0"]):
        x0 = torch.cat([oracle.draw(1) for _ in range(size)])
    noise, eps = torch.randn(2, *x0.shape, dtype=torch.float64)
    for gamma in (0.01, 0.05, 0.2):
        alpha, sigma = at_snr(gamma)
        x, a, s = with_image(alpha * x0 + sigma * eps, alpha, sigma, math.sqrt(eta) * x0 + noise, eta)
        assert a**2 / s**2 == pytest.approx(gamma + eta)
        mean = float(((oracle.denoise(x, a, s) - x0) ** 2).mean())
        (exact, without), (error, _) = measured_mmse(oracle, [gamma + eta, gamma], 600)
        assert abs(mean - exact) < 3 * math.sqrt(2) * error
        assert mean < without - 3 * error


def test_the_benefit_of_an_image_by_unit():
    """In eps units nothing at both ends; in x0 units largest at pure noise; the area is the information of the image."""
    gamma, eta = np.exp(U), 1.0
    gain = benefit(partial(pixel_mmse, p=0.5), gamma, eta)
    assert 0 < (gamma * gain).argmax() < len(U) - 1
    assert gain.argmax() == 0
    assert gamma[-1] * gain[-1] < 1e-9
    below = np.linspace(-14, 0, 200)
    image = information(below, np.exp(below) * pixel_mmse(np.exp(below), 0.5))[-1]  # I(x0; y) at SNR eta = 1
    assert information(U, gamma * gain)[-1] == pytest.approx(image, rel=0.02)


def test_sampling_discs_with_the_oracle_gives_one_disc_anywhere():
    mask, schedule, count = disc(2, 8), linear(200), 640
    with seeded(0, list(range(count))):
        x = torch.stack([torch.randn(1, 8, 8) for _ in range(count)])
        *_, last = Ancestral(steps=50, clip=None).trajectory(as_denoiser(Template(mask), schedule), schedule, x)
    drawn = last.x[:, 0].double()
    shifts = torch.stack([mask.roll((i, j), (0, 1)) for i in range(8) for j in range(8)])
    nearest = torch.cdist(drawn.flatten(1), shifts.flatten(1))
    assert float(nearest.min(1).values.max()) < 0.1
    assert chisquare(np.bincount(nearest.argmin(1), minlength=64)).pvalue > 1e-3


@pytest.mark.parametrize("sampler", [DDIM(steps=100, clip=None), Ancestral(steps=100, clip=None)])
def test_sampling_pixels_with_the_oracle_keeps_their_share(sampler):
    schedule = linear(200)
    with seeded(0, [0]):
        *_, last = sampler.trajectory(as_denoiser(Pixels(0.2, (64, 64)), schedule), schedule, torch.randn(1, 1, 64, 64))
    assert float(last.x.abs().sub(1).abs().quantile(0.99)) < 0.05
    assert binomtest(int((last.x > 0).sum()), last.x.numel(), 0.2).pvalue > 1e-3


def test_an_empty_share_has_nothing_to_learn():
    assert (pixel_mmse(np.ones(3), 0.0) == 0).all()
    assert oracles.entropy(0.0) == 0
