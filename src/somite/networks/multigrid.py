"""Cells on a pyramid, visited from fine to coarse and back: a cellular automaton in the V-cycle of multigrid methods (Brandt 1977).

A level has one local rule, whatever the image's size. On the way down its cells are updated, and each 2 x 2 of them are restricted to one
cell of the next level; on the way up what a coarser level found is added to the cells below it, and they are updated by the same rule:

    ds = W1 act(norm(p * s))      a learned 3 x 3 convolution, the norm of a cell's hidden units, trained; W1 without bias
    s <- s + ds                   every cell, at every update

so that coarse cells begin with what fine ones saw (texture), and not with a smaller image, as the pyramids of MedSegDiffNCA and M3D-NCA do.
What else is not theirs: restriction and prolongation are learned, every cell acts at every update, and no level has a head of its own.
What each of these gave is measured in docs/log.md. A U-Net is the same cycle without a rule: each of its convolutions has weights of its own.

    channels 12, 16, 24, 32, 32     61,635 weights with noise and timestep (the default)
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..nn.levels import Each, each
from ..nn.noisy import Noisy
from ..nn.padding import cropped, extended
from ..types import Cond, Maps, Output, State, Timesteps


class Multigrid(Noisy):
    """`channels` a cell and `hidden` units of its rule at each level, finest first; updates on the way `down`, at the coarsest level
    all there are, and on the way `up`, one number fewer. One number of `hidden`, `down` or `up` is for all levels. noised: as a denoiser
    (nn.noisy). Images of any size, extended at their far edges.
    """

    def __init__(
        self,
        channels: Sequence[int] = (12, 16, 24, 32, 32),
        hidden: Each = [18, 24, 36, 48, 48],  # noqa: B006 - never changed
        down: Each = [1, 1, 1, 1, 4],  # noqa: B006
        up: Each = [1, 1, 1, 2],  # noqa: B006
        image_channels: int = 3,
        mask_channels: int = 1,
        noised: bool = True,
        dims: Literal[2, 3] = 2,
    ) -> None:
        super().__init__(image_channels, mask_channels, noised, dims)
        levels = len(channels)
        if levels < 2:
            raise InputError(f"--method.network.channels {list(channels)}: a pyramid has at least two levels; give the width of each")
        widths, inner = each("channels", list(channels), levels), each("hidden", hidden, levels)
        self.down, self.up = each("down", down, levels), each("up", up, levels - 1, "levels above the coarsest")
        self.factor = 2 ** (levels - 1)
        conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.seed = conv(self.channels_given, widths[0], 3, padding=1)
        self.rules = nn.ModuleList(Rule(width, units, dims) for width, units in zip(widths, inner, strict=True))
        self.restrict = nn.ModuleList(conv(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths))
        self.prolong = nn.ModuleList(conv(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.head = conv(widths[0], mask_channels, 1)
        self.listen(inner)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image, told = cond["image"], self.told(t)
        given = extended(self.given(image, x), self.factor)
        cells = self.seed(given.contiguous(memory_format=(torch.channels_last, torch.channels_last_3d)[self.dims - 2]))
        kept = []
        for depth, (rule, updates) in enumerate(zip(self.rules, self.down, strict=True)):
            if depth:
                kept.append(cells)
                cells = self.restrict[depth - 1](cells)
            cells = evolved(rule, cells, updates, told and told[depth])  # type: ignore[arg-type]
        for depth in reversed(range(len(self.up))):
            cells = kept[depth] + F.interpolate(self.prolong[depth](cells), scale_factor=2, mode="nearest")
            cells = evolved(self.rules[depth], cells, self.up[depth], told and told[depth])  # type: ignore[arg-type]
        return Output(cropped(self.head(cells), image.shape[2:]))


class Rule(nn.Module):
    """What a cell becomes of itself and its neighbours: (b, c, *s) -> the change of each cell (b, c, *s). Cells lie channels last in memory."""

    def __init__(self, channels: int, hidden: int, dims: Literal[2, 3]) -> None:
        super().__init__()
        self.perceive = (nn.Conv2d, nn.Conv3d)[dims - 2](channels, hidden, 3, padding=1)
        self.norm = nn.LayerNorm(hidden)
        self.act = nn.Linear(hidden, channels, bias=False)
        nn.init.normal_(self.act.weight, std=0.02)  # a cell hardly changes at first

    def forward(self, cells: Tensor, told: Tensor | None) -> Tensor:
        h = self.norm(self.perceive(cells).movedim(1, -1))  # (b, *s, hidden)
        if told is not None:
            scale, shift = told.view(h.shape[0], *[1] * (h.ndim - 2), -1).chunk(2, -1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.act(F.leaky_relu(h, 0.01)).movedim(-1, 1)


def evolved(rule: Rule, cells: Tensor, updates: int, told: Tensor | None) -> Tensor:
    for _ in range(updates):
        cells = cells + rule(cells, told)
    return cells
