"""Noise schedules: q(x_t | x0) = N(alpha_t x0, sigma_t^2 I) with alpha_t^2 = prod_{u<=t} (1 - beta_u), sigma_t^2 = 1 - alpha_t^2.

A schedule is its betas. `linear`, `scaled_linear` and `cosine` return one; `zero_snr` rescales any of them so that
the last step holds no signal at all. SNR_t = alpha_t^2 / sigma_t^2.
"""

import math

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..types import Posterior, Timesteps

AlphaSigma = tuple[float, float]


class Schedule(nn.Module):
    """alpha_t and sigma_t at T timesteps, and at timestep -1, the clean target (1, 0)."""

    table: Tensor  # (2, T + 1): alpha, sigma
    steps: Tensor  # (4, T): the fields of Posterior

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        betas = betas.double()
        bad = [(t, beta) for t, beta in enumerate(betas.tolist()) if not 0 < beta <= 1 or (beta == 1 and t < len(betas) - 1)]
        if bad:
            (t, beta), *_ = bad
            raise InputError(
                f"a noise schedule of {len(betas)} steps has beta = {beta:.4g} at t = {t}, outside (0, 1); "
                "take more steps (the linear schedule needs more than 20) or a smaller end"
            )
        alpha_bar = torch.cumprod(1 - betas, 0)
        clean = torch.ones(1, dtype=torch.float64)
        self._alpha_bar = torch.cat([clean, alpha_bar]).tolist()  # exact: 1 - a_t^2 / a_s^2 cancels in float32
        table = torch.stack([torch.cat([clean, alpha_bar]).sqrt(), torch.cat([1 - clean, 1 - alpha_bar]).sqrt()])
        self.register_buffer("table", table.float(), persistent=False)
        self.register_buffer("steps", posterior_table(self._alpha_bar).float(), persistent=False)

    def __len__(self) -> int:
        return len(self._alpha_bar) - 1

    def forward(self, t: Timesteps) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t, (b,) each, for training."""
        alpha, sigma = self.table[:, t + 1]
        return alpha, sigma

    def posterior(self, t: Timesteps) -> Posterior:
        """The coefficients of the exact step from t to t-1 (Ho et al. 2020, eq. 7), for variational losses."""
        return Posterior(*self.steps[:, t])

    def at(self, t: int) -> AlphaSigma:
        """alpha_t and sigma_t as exact Python floats, for sampling."""
        a = self._alpha_bar[t + 1]
        return math.sqrt(a), math.sqrt(1 - a)

    def snr(self, t: int) -> float:
        """alpha_t^2 / sigma_t^2, t >= 0."""
        a = self._alpha_bar[t + 1]
        return a / (1 - a)

    @property
    def betas(self) -> list[float]:
        return [1 - now / before for before, now in zip(self._alpha_bar, self._alpha_bar[1:], strict=False)]


def linear(steps: int = 1000, start: float = 1e-4, end: float = 0.02, zero_snr: bool = False) -> Schedule:
    """Betas equally spaced (Ho et al. 2020), for T = 1000; other T rescale them by 1000 / T, as guided-diffusion does.

    The rescaling keeps the noise at the last step the same for all T; it needs T > 1000 * end.
    """
    scale = 1000 / steps
    return _schedule(torch.linspace(scale * start, scale * end, steps, dtype=torch.float64), zero_snr)


def scaled_linear(steps: int = 1000, start: float = 0.00085, end: float = 0.012, zero_snr: bool = False) -> Schedule:
    """Square roots of betas equally spaced (Rombach et al. 2022)."""
    return _schedule(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2, zero_snr)


def cosine(steps: int = 1000, offset: float = 0.008, largest: float = 0.999, zero_snr: bool = False) -> Schedule:
    """alpha_bar(u) = cos^2((u + offset) / (1 + offset) pi / 2), betas capped at `largest` (Nichol & Dhariwal 2021, eq. 17)."""
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return _schedule((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest), zero_snr)


def _schedule(betas: Tensor, zero_snr: bool) -> Schedule:
    schedule = Schedule(betas)
    return Schedule(without_terminal_signal(betas)) if zero_snr else schedule


def without_terminal_signal(betas: Tensor) -> Tensor:
    """Betas with SNR_{T-1} = 0: sqrt(alpha_bar) is shifted to end at 0 and scaled to start where it did (Lin et al. 2024, alg. 1)."""
    root = torch.cumprod(1 - betas, 0).sqrt()
    alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return 1 - alpha_bar / before


def posterior_table(alpha_bar: list[float]) -> Tensor:
    """(4, T) in float64. The variance of the last step, to the clean target, is zero; its logarithm is the one before's."""
    a = torch.tensor(alpha_bar, dtype=torch.float64)
    before, now = a[:-1], a[1:]
    beta = 1 - now / before
    small = beta * (1 - before) / (1 - now)
    small[0] = small[min(1, len(small) - 1)]  # log 0 otherwise (guided-diffusion's choice too)
    of_x = (now / before).sqrt() * (1 - before) / (1 - now)
    return torch.stack([before.sqrt() * beta / (1 - now), of_x, small.log(), beta.log()])
