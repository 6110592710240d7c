"""Diffusion pretraining for CT segmentation (arXiv 2501.19265): patches of volumes are denoised, told where in the body they lie, and
the features of the denoiser are kept.

x_t and the universal body coordinates of each voxel, concatenated, go through an FPN; the features that the paper reads are the
encoder's at t = 10, 30 and 60, for which the decoder is not computed (`pyramid`, diffusion/features.py).

    base 16, 6 levels, 1 + 3 channels in: 49,774,017 weights, of which the FPN itself has vox2vec's 47,625,744

# Paper: says FPN, linear attention at early levels and quadratic where channels exceed the spatial size; here: widths, blocks and
# vox2vec's FPN for what it does not say, group norms because a batch is one patch, FiLM for the timestep, attention after every stage.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import rng
from ..errors import InputError
from ..nn.attention import attention_for
from ..nn.conditioning import sinusoid
from ..nn.hiding import seen_blocks
from ..nn.pyramid import FPN, Backbone, Pyramid, Side, doubled
from ..types import Cond, Maps, Output, State, Timesteps, right

FREQUENCIES, TOLD = 16, 64  # numbers of a timestep's sinusoid, and of what is made of it
GROUPS = 8


class FiLMResidual(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))), film(h) = (1 + scale) h + shift, both from what the network is told (b, 64)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.conv1, self.conv2 = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.film = nn.Linear(TOLD, 2 * channels)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        scale, shift = self.film(F.silu(told)).reshape(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, 1)
        return x + self.conv2(F.silu(h * (1 + scale) + shift))


class FiLMStage(nn.Module):
    """Two residual blocks, and attention among the cells, linear where there are more of them than channels."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FiLMResidual(channels) for _ in range(2))
        self.attention = attention_for(channels, tokens, 3, GROUPS)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, told)
        return self.attention(x)


class CTPretrain(Backbone):
    """x (b, channels, h, w, d), a noised patch of any size -> the noise, or what else the method predicts; zero before training.

    cond["coordinates"] (b, 3, h, w, d): where each voxel lies in the body, in units of about 1. Without them (no such entry, or None), and
    for a share `forget` of the examples of training, the network sees zeros and is told so. coordinates: how many there are; 0: a
    network that takes none. patch: the size for which attention is chosen, a kind for each level; the weights then belong to that kind, so
    it does not follow the size that is asked about. base is a multiple of 8, the groups of the norms.

    hide: in training each block of `block` voxels an axis is left out of x, zero, with this probability, so that it has to be told from what
    lies around it (masking and noise together, as masked diffusion autoencoders learn). 0: nothing is hidden.
    """

    def __init__(
        self,
        base: int = 16,
        levels: int = 6,
        channels: int = 1,
        coordinates: Literal[0, 3] = 3,
        forget: float = 0.15,
        patch: Sequence[int] = (128, 128, 32),
        hide: float = 0.0,
        block: Sequence[int] | int = 16,
    ) -> None:
        super().__init__()
        if base % GROUPS or base < GROUPS or levels < 2:
            raise InputError(
                f"--method.network.base {base} and levels {levels}: base must be a multiple of {GROUPS} and there must be 2 levels at least"
            )
        if not 0 <= forget < 1:
            raise InputError(f"--method.network.forget {forget}: it is a share of the examples, at least 0 and below 1; 0.15 is usual")
        if not 0 <= hide < 1:
            raise InputError(f"--method.network.hide {hide}: it is a share of the blocks, at least 0 and below 1; 0.5 to 0.6 is usual")
        self.widths, self.channels_in, self.coordinates, self.forget = doubled(base, levels), channels, coordinates, forget
        self.hide, self.block = hide, block
        tokens = [math.prod(-(-size // 2**level) for size in patch) for level in range(levels)]
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, TOLD), nn.SiLU(), nn.Linear(TOLD, TOLD))
        if coordinates:
            self.given = nn.Parameter(torch.zeros(TOLD))  # added where coordinates are given, subtracted where they are not
        self.fpn = FPN(channels + coordinates, self.widths, lambda level: FiLMStage(self.widths[level], tokens[level]))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, base), nn.SiLU(), nn.Conv3d(base, channels, 3, padding=1))
        nn.init.zeros_(self.out[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.out[2].bias)  # type: ignore[arg-type]

    def pyramid(self, x: Tensor, t: Timesteps, cond: Cond, side: Side = "encoder") -> Pyramid:
        """The features that the paper reads are the encoder's."""
        return self.fpn.pyramid(side, *self.told(x, t, cond))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        down, up = self.fpn.parts()
        return [self.time, *down], up, [self.out]

    def after_pretraining(self) -> None:
        self.forget = self.hide = 0.0

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        return Output(self.out(self.pyramid(x, t, cond, "decoder")[0]))

    def told(self, x: Tensor, t: Timesteps, cond: Cond) -> tuple[Tensor, Tensor]:
        """What the FPN sees (b, channels + coordinates, h, w, d), and what its blocks are told (b, 64)."""
        if x.ndim != 5 or x.shape[1] != self.channels_in:
            raise InputError(
                f"this network denoises volumes of {self.channels_in} channels, (b, {self.channels_in}, h, w, d), got {tuple(x.shape)}; "
                "set --method.network.channels"
            )
        if self.training and self.hide:
            x = x * seen_blocks(x.shape, self.hide, self.block, x.device).to(x.dtype)
        told = self.time(sinusoid(t, FREQUENCIES).to(self.time[0].weight.dtype))  # type: ignore[arg-type]
        if not self.coordinates:
            return x, told
        where, given = self.placed(x, cond)
        return torch.cat([x, where.to(x.dtype)], 1), told + right(2 * given.to(told.dtype) - 1, told) * self.given

    def placed(self, x: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """The coordinates, zeros where an example has none, and which examples have them (b,)."""
        where = cond.get("coordinates")
        if where is None:
            return x.new_zeros(len(x), self.coordinates, *x.shape[2:]), x.new_zeros(len(x))
        if where.shape != (len(x), self.coordinates, *x.shape[2:]):
            raise InputError(
                f"the coordinates are {tuple(where.shape)} for patches of {tuple(x.shape)}; give ({len(x)}, 3, h, w, d) cut from the volume like the patches"
            )
        given = x.new_ones(len(x))
        if self.training and self.forget:
            given = (rng.uniform((len(x),), x.device) >= self.forget).to(x.dtype)
        return where * right(given, where), given
