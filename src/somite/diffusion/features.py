"""What a diffusion backbone has to say of a picture: its feature maps at a few timesteps."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..nn.pyramid import Backbone, Pyramid, Side
from ..types import Cond, Shape
from .schedule import Schedule

Together = Literal["concat", "mean"]  # what becomes of the timesteps' maps
# Voxels that a CPU is given at a time: timesteps of small patches go together, which is several times as fast, those of large ones (128 x 128 x
# 32) one by one, which is no slower than together and takes 0.7 GB less (docs/results/features-cpu.md).
VOXELS = 2**18


def features(
    backbone: Backbone,
    x0: Tensor,
    cond: Cond,
    schedule: Schedule | None,
    timesteps: Sequence[int],
    noise: Sequence[Tensor] | None = None,
    side: Side = "encoder",
    together: Together = "concat",
) -> Pyramid:
    """The pyramid of x_t = alpha_t x0 + sigma_t eps at each timestep, level by level: (b, timesteps c_i, *s_i), timestep after timestep,
    or their mean (b, c_i, *s_i).

    x0 (b, c, *s) in model space. cond: of the backbone, the same rows. noise: eps for each timestep, each like x0 (`field` makes a fixed one);
    None: x_t = alpha_t x0, what is left of the picture without any noise. schedule: None for a backbone that was trained without noise, which is
    asked about the picture itself at t = 0, once. No gradient goes anywhere where the backbone is frozen.
    """
    if schedule is None:
        return backbone.pyramid(x0, torch.zeros(len(x0), dtype=torch.long, device=x0.device), cond, side)
    if not timesteps or (noise is not None and len(noise) != len(timesteps)):
        raise InputError(
            f"{len(timesteps)} timesteps with {len(noise or [])} fields of noise: give one timestep at least, and a field each"
        )
    if not all(0 <= t < len(schedule) for t in timesteps):
        raise InputError(f"the timesteps {[*timesteps]} must lie in 0 .. {len(schedule) - 1}, those of the schedule")
    noised = []
    for i, (alpha, sigma) in enumerate(map(schedule.at, timesteps)):
        noised.append(alpha * x0 if noise is None else alpha * x0 + sigma * noise[i])
    many = len(timesteps) if x0.is_cuda else max(1, VOXELS // x0[:, 0].numel())
    parts = [asked(backbone, noised[i : i + many], timesteps[i : i + many], cond, side) for i in range(0, len(timesteps), many)]
    pyramid = [torch.cat(maps) for maps in zip(*parts, strict=True)]  # (timesteps, b, c_i, *s_i)
    return [cells.mean(0) if together == "mean" else cells.transpose(0, 1).flatten(1, 2) for cells in pyramid]


def asked(backbone: Backbone, noised: Sequence[Tensor], timesteps: Sequence[int], cond: Cond, side: Side) -> Pyramid:
    """The maps of several noised pictures of the same rows in one batch, (timesteps, b, c_i, *s_i)."""
    count, b = len(timesteps), len(noised[0])
    t = torch.tensor(timesteps, device=noised[0].device).repeat_interleave(b)
    each = {name: torch.cat([value] * count) for name, value in cond.items() if value is not None}
    return [cells.unflatten(0, (count, b)) for cells in backbone.pyramid(torch.cat([*noised]), t, each, side)]


def field(shape: Shape, seed: int, t: int, name: str = "", device: torch.device | str = "cpu") -> Tensor:
    """The noise (1, c, *s) of a whole volume at a timestep, a function of (seed, t, name): every window cuts its own out of it, so that
    windows which overlap see the same voxels. An empty name: one field for all volumes of a size.
    """
    with rng.seeded(seed, [f"{name}/{t}"]):
        return rng.normal((1, *shape), torch.device(device))
