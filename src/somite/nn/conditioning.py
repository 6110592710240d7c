"""What transformers of diffusion are told beside their input: the timestep, class labels, and where in the grid a token lies.

Peebles & Xie 2023 (DiT, arXiv 2212.09748), with GeCA's embedding of labels (arXiv 2407.03018): one linear map after another with
nothing between, so that several labels add up and none at all is the null condition of classifier-free guidance.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..types import Cond, Timesteps

Positions = Literal["grid", "flat", "none"]
FREQUENCIES = 256  # of a timestep's sinusoid: half cosines, then half sines


class TimestepEmbedder(nn.Module):
    """t (b,) -> (b, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, t: Timesteps) -> Tensor:
        return self.mlp(sinusoid(t, FREQUENCIES).to(self.mlp[0].weight.dtype))  # type: ignore[arg-type]


class LabelEmbedder(nn.Module):
    """labels (b, classes), 0 or 1 each, any number of them set -> (b, width)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.embedding_table = nn.Sequential(nn.Linear(classes, width), nn.Linear(width, width))
        self.embedding_table.apply(plain)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels.float())


class FinalLayer(nn.Module):
    """DiT's last layer: a norm without weights of its own, modulated, and a linear map."""

    def __init__(self, width: int, outputs: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps, elementwise_affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, outputs)

    def modulation(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale, (b, width) each."""
        shift, scale = self.adaLN_modulation(c).chunk(2, 1)
        return shift, scale

    def forward(self, z: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self.linear(modulated(self.norm(z), shift, scale))


def sinusoid(t: Tensor, width: int) -> Tensor:
    """(b,) -> (b, width): cosines, then sines, of frequencies 10000^(-i / half)."""
    half = width // 2
    angle = t.float()[:, None] * (-math.log(10000) / half * torch.arange(half, device=t.device).float()).exp()
    return torch.cat([angle.cos(), angle.sin()], 1)


def embedded(embedder: LabelEmbedder | None, cond: Cond) -> Cond:
    """The labels' embedding, as a network's `encode` hands it on; nothing for a network of no classes."""
    if embedder is None:
        return {}
    if "labels" not in cond:
        raise InputError(
            f"this network is told {embedder.classes} class labels, but the condition has {', '.join(cond) or 'nothing'}; "
            "give labels, or set --method.network.classes 0"
        )
    if cond["labels"].ndim != 2 or cond["labels"].shape[1] != embedder.classes:
        raise InputError(
            f"this network is told {embedder.classes} class labels, (b, {embedder.classes}), got {tuple(cond['labels'].shape)}; "
            "set --method.network.classes to the number of labels"
        )
    return {"labels": embedder(cond["labels"])}


@lru_cache(maxsize=16)
def positions(kind: Positions, space: tuple[int, ...], width: int, device: torch.device) -> Tensor:
    """(n, width) for the cells of a grid in row-major order: a constant, kept for the next call."""
    with torch.inference_mode(False):  # or a validation would leave a tensor that training cannot use
        match kind:
            case "grid":
                return grid_positions(space, width, device)
            case "flat":
                return flat_positions(space, width, device)
            case _:
                return torch.zeros(math.prod(space), width, device=device)


def grid_positions(space: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Each axis has an equal share of the width, the last axis first, as in DiT;
    a share holds sines, then cosines, of frequencies 10000^(-i / half). What an axis more leaves of the width is zero.
    """
    half = width // (2 * len(space))
    omega = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float64) / max(half, 1))
    axes = torch.meshgrid(*[torch.arange(n, device=device, dtype=torch.float64) for n in space], indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in reversed(axes)]
    known = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)
    return nn.functional.pad(known, (0, width - known.shape[1])).float()


def flat_positions(space: Sequence[int], width: int, device: torch.device) -> Tensor:
    """GeCA's program: sines and cosines of the place in row-major order alone, so that it depends on the width of the image; sines
    in even channels, cosines in odd ones, each of its own frequency 10000^(-i / width).
    """
    place = torch.arange(math.prod(space), device=device, dtype=torch.float64)[:, None]
    channel = torch.arange(width, device=device)
    angle = place * 10000.0 ** (-channel.double() / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def plain(module: nn.Module) -> None:
    """DiT's start of a linear map: Xavier's uniform weights and no bias."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def silent(*layers: nn.Linear) -> None:
    """adaLN-zero's start: a map whose output is zero."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def counted(classes: int | None) -> int:
    """How many labels a network is told: None, in a recipe, is as many as the data have, which training fills in."""
    if classes is None:
        raise InputError(
            "--method.network.classes is null, which training fills in from labelled data; give a task that needs labels, or a number"
        )
    return classes
