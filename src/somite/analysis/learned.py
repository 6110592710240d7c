"""The learned fingerprint: a small network trained to recover masks from noise, without images (Öttl et al. 2024, experiment E3)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .. import rng
from ..diffusion.schedule import Schedule
from ..errors import InputError
from ..nn.unet import UNet
from ..tasks.task import Row
from ..types import right
from .curves import grid, log_snr

MULTS = (1, 2, 2)  # of channels, level by level; each level but the first halves the masks


class MaskDenoiser(nn.Module):
    """x0 = tanh(alpha x_t / sigma^2 + g(x_t, t)), g a small U-Net that starts at zero; masks in {-1, 1}.

    For independent noise the posterior mean of a pixel has exactly this form, where g speaks of all *other* pixels: what a
    pixel says of itself need not be learned, and at the start the network is the oracle of independent fair pixels.
    """

    def __init__(self, schedule: Schedule, channels: int = 32, mults: Sequence[int] = MULTS) -> None:
        super().__init__()
        self.schedule = schedule
        self.unet = UNet(1, 1, channels, mults, res_blocks=1, attention=())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(b, 1, h, w) -> E[x0 | x_t]; t is scaled to 0 .. 1000 for the embedding."""
        alpha, sigma = (right(c, x_t) for c in self.schedule(t))
        g = self.unet(self.unet.stem(x_t), t * 1000 // len(self.schedule))
        return torch.tanh(alpha / sigma**2 * x_t + g)


def check(steps: int, shape: Sequence[int]) -> None:
    """Raises InputError where `learn` cannot train so many steps on masks of this shape."""
    if steps < 1:
        raise InputError(f"--train {steps}: training takes at least 1 step; 2000 is a beginning")
    factor = 2 ** (len(MULTS) - 1)
    if any(n % factor for n in shape):
        raise InputError(f"masks of {tuple(shape)} do not halve evenly; choose a --size that is a multiple of {factor}")


def learn(
    masks: Tensor,
    schedule: Schedule,
    steps: int,
    batch: int = 16,
    rate: float = 1e-3,
    seed: int = 0,
    progress=iter,  # noqa: ANN001
) -> MaskDenoiser:
    """Train on masks (n, h, w) with E|x0 - net|^2 at uniform t, Adam, a rate that falls to zero; mirrored at random."""
    check(steps, masks.shape[1:])
    x0 = 2.0 * masks[:, None].float() - 1
    with torch.random.fork_rng():
        torch.manual_seed(rng.derive(seed, "learned"))
        network = MaskDenoiser(schedule)
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for step in progress(range(steps)):
            rng.step_seed(seed, step, 0)
            some = x0[torch.randint(len(x0), (batch,))]
            some = some.flip([axis for axis in range(2, some.ndim) if torch.rand(()) < 0.5])
            t = torch.randint(len(schedule), (batch,))
            alpha, sigma = (right(c, some) for c in schedule(t))
            x_t = alpha * some + sigma * rng.normal(tuple(some.shape), some.device)
            loss = ((network(x_t, t) - some) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            fall.step()
    return network.eval()


def learned_fingerprint(
    masks: Tensor,
    schedule: Schedule,
    groups: Sequence[str],
    cases: Sequence[str],
    steps: int,
    timesteps: Sequence[int] | None = None,
    seed: int = 0,
    progress=iter,  # noqa: ANN001
) -> list[Row]:
    """Rows of (case, t, prior, learned) for a fifth of the groups, of a network trained on the others."""
    held = np.array([rng.derive(seed, "held", group) % 5 == 0 for group in groups])
    if held.all() or not held.any():
        held = np.array(groups) == sorted(set(groups))[0]
    if held.all():
        raise InputError("--train holds some patients out, and these masks are all of one; give more cases or mend groups.csv")
    network = learn(masks[torch.as_tensor(~held)], schedule, steps, seed=seed, progress=progress)
    mean = 2.0 * masks[torch.as_tensor(~held)].float().mean(0) - 1
    rows = []
    for i in np.flatnonzero(held).tolist():
        x0 = 2.0 * masks[i].float() - 1
        for t, error in errors(network, x0, timesteps or grid(schedule, 30), f"fingerprint/{cases[i]}", seed).items():
            key = {"case": cases[i], "group": groups[i], "t": t, "log_snr": log_snr(schedule, t)}
            rows.append({**key, "prior": float(((x0 - mean) ** 2).mean()), "learned": error})
    return rows


@torch.no_grad()
def errors(network: MaskDenoiser, x0: Tensor, timesteps: Sequence[int], name: str, seed: int) -> dict[int, float]:
    """The error per pixel at each timestep of one mask (*s) in {-1, 1}, with one draw of noise."""
    with rng.seeded(seed, [name]):
        eps = rng.normal((1, *x0.shape), x0.device)[:, None]
    t = torch.tensor(list(timesteps))
    alpha, sigma = (right(c, eps) for c in network.schedule(t))
    x_t = alpha * x0 + sigma * eps  # (timesteps, 1, *s)
    return dict(zip(t.tolist(), ((network(x_t, t) - x0) ** 2).flatten(1).mean(1).tolist(), strict=True))
