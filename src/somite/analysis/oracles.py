"""Distributions of masks whose best denoiser is known exactly, as the ground truth of every analysis of timesteps.

x_t = alpha x0 + sigma eps, gamma = alpha^2 / sigma^2. An oracle draws x0 and knows E[x0 | x_t]; its error is mmse(gamma), per
pixel, and in units of eps the same error is L_eps = gamma mmse(gamma). What follows from them:

    I(x0; x_t) = 1/2 int_0^gamma mmse dgamma'     (Guo, Shamai & Verdu 2005, the I-MMSE relation), so that
    H(x0)      = 1/2 int L_eps dln gamma          per pixel in nats, for discrete x0
    mmse_img(gamma) = mmse(gamma + eta)           if the image is y = sqrt(eta) x0 + noise of variance 1
    {0, 1} at gamma = 1/4 of {-1, 1} at gamma / 4

Masks are discrete: mmse falls faster than 1 / gamma and L_eps has a peak. Images have a density: L_eps -> 1 as gamma grows.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr
from torch import Tensor

from .. import rng
from ..diffusion.samplers import Denoise
from ..diffusion.schedule import AlphaSigma, Schedule
from ..types import Output, Prediction, State

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(180)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_CPU = torch.device("cpu")


class Oracle(ABC):
    """A prior over x0 of shape (*s) with its posterior mean. All in float64."""

    @abstractmethod
    def draw(self, count: int) -> Tensor:
        """(count, *s) from the prior, through somite.rng."""

    @abstractmethod
    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x_t], (b, *s)."""


class Pixels(Oracle):
    """Independent pixels that are `high` with probability p, else `low`.

    E[x0 | x_t] = tanh(alpha x_t / sigma^2 + logit(p) / 2) for {-1, 1};
                  sigmoid((alpha x_t - alpha^2 / 2) / sigma^2 + logit p) for {0, 1}.
    """

    def __init__(self, p: float, shape: Sequence[int], low: float = -1.0, high: float = 1.0) -> None:
        self.p, self.shape, self.low, self.high = p, tuple(shape), low, high

    def draw(self, count: int) -> Tensor:
        return torch.where(rng.uniform((count, *self.shape), _CPU) < self.p, self.high, self.low).double()

    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        return middle + half * torch.tanh(half * alpha * (x_t - alpha * middle) / sigma**2 + logit(self.p) / 2)


class Texture(Oracle):
    """Stationary periodic Gaussian images: `spectrum` (*s) are the eigenvalues of the covariance in the Fourier basis."""

    def __init__(self, spectrum: Tensor) -> None:
        self.spectrum = spectrum.double()

    def draw(self, count: int) -> Tensor:
        return self.filtered(rng.normal((count, *self.spectrum.shape), _CPU).double(), self.spectrum.sqrt())

    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        return self.filtered(x_t, alpha * self.spectrum / (alpha**2 * self.spectrum + sigma**2))

    def filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        axes = tuple(range(1, x.ndim))
        return torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * gain, dim=axes).real


class Template(Oracle):
    """One object, `mask` (*s) of {-1, 1}, at a uniformly random position with periodic borders: N = its pixels, H = ln N in all.

    The posterior over shifts is softmax(alpha <x_t, shifted mask> / sigma^2); both sums over shifts are products of Fourier
    transforms. The object is found where gamma > ln N / (2 n), n its pixels: small objects are lost at little noise.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask.double()
        self.axes = tuple(range(-mask.ndim, 0))
        self.transform = torch.fft.fftn(self.mask)

    def draw(self, count: int) -> Tensor:
        at = (rng.uniform((count, 1), _CPU)[:, 0].double() * self.mask.numel()).long()
        shifts = np.stack(np.unravel_index(at.numpy(), tuple(self.mask.shape)), -1).tolist()
        return torch.stack([self.mask.roll(tuple(shift), self.axes) for shift in shifts])

    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        match = torch.fft.ifftn(torch.fft.fftn(x_t.double(), dim=self.axes) * self.transform.conj(), dim=self.axes).real
        weights = torch.softmax((alpha / sigma**2 * match).flatten(1), 1).view_as(match)  # of each shift
        return torch.fft.ifftn(torch.fft.fftn(weights, dim=self.axes) * self.transform, dim=self.axes).real


class MarkovRows(Oracle):
    """Rows (the last axis) are stationary two-state Markov chains in {-1, 1}: `up` = P(-1 -> 1), `down` = P(1 -> -1)."""

    def __init__(self, up: float, down: float, shape: Sequence[int]) -> None:
        self.up, self.down, self.shape = up, down, tuple(shape)

    @property
    def entropy(self) -> float:
        """Nats per pixel of a long row."""
        p = self.up / (self.up + self.down)
        return p * entropy(self.down) + (1 - p) * entropy(self.up)

    def draw(self, count: int) -> Tensor:
        u = rng.uniform((count, *self.shape), _CPU)
        state = u[..., 0] < self.up / (self.up + self.down)
        states = [state]
        for i in range(1, self.shape[-1]):
            state = torch.where(state, u[..., i] >= self.down, u[..., i] < self.up)
            states.append(state)
        return 2 * torch.stack(states, -1).double() - 1

    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """Forward-backward in log-odds: E[x0_i | x_t] = tanh((left_i + own_i + right_i) / 2)."""
        own = 2 * alpha / sigma**2 * x_t.double()
        stay, fall, rise, rest = (math.log(p) for p in (1 - self.down, self.down, self.up, 1 - self.up))
        zero = torch.zeros_like(own[..., 0])
        left = [zero + logit(self.up / (self.up + self.down))]
        right = [zero]
        for i in range(1, self.shape[-1]):
            before = left[-1] + own[..., i - 1]
            left.append(torch.logaddexp(stay + before, zero + rise) - torch.logaddexp(fall + before, zero + rest))
            after = right[-1] + own[..., -i]
            right.append(torch.logaddexp(stay + after, zero + fall) - torch.logaddexp(rise + after, zero + rest))
        return torch.tanh((torch.stack(left, -1) + own + torch.stack(right[::-1], -1)) / 2)


class MaskSet(Oracle):
    """A finite set of masks (n, *s), equally likely: E[x0 | x_t] = sum_k w_k m_k, the exact empirical Bayes denoiser.

    w_k ~ exp((alpha <x_t, m_k> - alpha^2 |m_k|^2 / 2) / sigma^2), for values of any kind.
    """

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks.double()

    def draw(self, count: int) -> Tensor:
        return self.masks[(rng.uniform((count, 1), _CPU)[:, 0].double() * len(self.masks)).long()]

    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        flat = self.masks.flatten(1)
        scores = (alpha * x_t.double().flatten(1) @ flat.T - alpha**2 / 2 * (flat**2).sum(1)) / sigma**2
        return (torch.softmax(scores, 1) @ flat).view(len(x_t), *self.masks.shape[1:])


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def entropy(p: float) -> float:
    """Of a coin, in nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def at_snr(gamma: float) -> AlphaSigma:
    """(alpha, sigma) with alpha^2 + sigma^2 = 1 and alpha^2 / sigma^2 = gamma."""
    return math.sqrt(gamma / (1 + gamma)), math.sqrt(1 / (1 + gamma))


def with_image(x_t: Tensor, alpha: float, sigma: float, y: Tensor, eta: float) -> tuple[Tensor, float, float]:
    """x_t and an image y = sqrt(eta) x0 + n of unit noise, as one observation of SNR gamma + eta: signal-to-noise ratios add."""
    gamma = alpha**2 / sigma**2
    both = (alpha / sigma**2 * x_t + math.sqrt(eta) * y) / (gamma + eta)
    new_alpha, new_sigma = at_snr(gamma + eta)
    return new_alpha * both, new_alpha, new_sigma


def pixel_mmse(gamma: ArrayLike, p: float, amplitude: float = 1.0) -> NDArray[np.float64]:
    """mmse(gamma) of a pixel that is +amplitude with probability p, else -amplitude: E sech^2(gamma x0 + sqrt(gamma) z + logit(p) / 2).

    An amplitude of 1/2 gives the pixel in {0, 1}. By Gauss-Hermite quadrature in z.
    """
    if p in (0, 1):
        return np.zeros_like(np.asarray(gamma, np.float64))
    g = amplitude**2 * np.asarray(gamma, np.float64)[..., None]
    prior = logit(p) / 2
    out = 0.0
    for weight, sign in ((p, 1), (1 - p, -1)):
        u = np.abs(sign * g + np.sqrt(g) * _NODES + prior)
        sech2 = 4 * np.exp(-2 * u) / (1 + np.exp(-2 * u)) ** 2
        out = out + weight * (sech2 * _WEIGHTS).sum(-1)
    return amplitude**2 * np.asarray(out)


def texture_loss_eps(gamma: ArrayLike, eigenvalues: ArrayLike) -> NDArray[np.float64]:
    """L_eps = mean_k lambda_k gamma / (1 + lambda_k gamma): strictly increasing in gamma, so decreasing in t."""
    product = np.asarray(gamma, np.float64)[..., None] * np.asarray(eigenvalues, np.float64).reshape(-1)
    return (product / (1 + product)).mean(-1)


def measured_mmse(oracle: Oracle, gammas: Sequence[float], draws: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """E|x0 - E[x0 | x_t]|^2 per pixel at each gamma by Monte Carlo, and its standard error; the same draws at every gamma."""
    with rng.seeded(seed, range(draws)):
        x0 = oracle.draw(draws)
        eps = rng.normal(tuple(x0.shape), _CPU).double()
    errors = []
    for alpha, sigma in map(at_snr, gammas):
        errors.append(((x0 - oracle.denoise(alpha * x0 + sigma * eps, alpha, sigma)) ** 2).flatten(1).mean(1))
    found = torch.stack(errors)
    return found.mean(1).numpy(), (found.std(1) / math.sqrt(draws)).numpy()


def information(log_snr: ArrayLike, loss_eps: ArrayLike) -> NDArray[np.float64]:
    """I(x0; x_t) in nats per pixel at each log-SNR (increasing): 1/2 int L_eps dln gamma, trapezoids.

    Below the first point mmse is taken as constant (there L_eps ~ gamma), which adds L_eps / 2 of that point. The last value is
    the entropy, if L_eps has vanished by then. loss_eps may be (..., points).
    """
    u, loss = np.asarray(log_snr, np.float64), np.asarray(loss_eps, np.float64)
    steps = np.diff(u) * (loss[..., 1:] + loss[..., :-1]) / 2
    return (loss[..., :1] + np.concatenate([np.zeros_like(loss[..., :1]), steps.cumsum(-1)], -1)) / 2


def benefit(mmse: Callable[[ArrayLike], NDArray[np.float64]], gamma: ArrayLike, eta: float) -> NDArray[np.float64]:
    """What an image of SNR eta saves in x0 units: mmse(gamma) - mmse(gamma + eta); times gamma in eps units."""
    return mmse(gamma) - mmse(np.asarray(gamma) + eta)


def last_readable(schedule: Schedule, pixels: int, amplitude: float = 1.0, error: float = 1e-3) -> int:
    """The last t at which the sign of the mean of `pixels` equal pixels is wrong less often than `error`: Q(sqrt(n gamma))."""
    snr = np.array([schedule.snr(t) for t in range(len(schedule))])
    fine = log_ndtr(-amplitude * np.sqrt(pixels * snr)) <= math.log(error)
    return int(fine.sum()) - 1


def as_denoiser(oracle: Oracle, schedule: Schedule) -> Denoise:
    """The oracle in a network's place, for samplers: x is (b, 1, *s) and its rows stand at one t."""

    def denoise(x: Tensor, t: Tensor, state: State = None) -> Prediction:
        alpha, sigma = schedule.at(int(t[0]))
        x0 = oracle.denoise(x[:, 0].double(), alpha, sigma)[:, None].to(x.dtype)
        return Prediction(x0, (x - alpha * x0) / sigma, Output(x0))

    return denoise
