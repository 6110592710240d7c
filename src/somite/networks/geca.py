"""GeCA: generative cellular automata, a synthesiser of images and their latents (Elbatel et al. 2024, arXiv 2407.03018).

A cell's numbers: [x_t | estimate | hidden]. x_t is given; each update of a cell adds to the rest (`nn.cell_transformer`), and after
`updates` of them the estimate is the network's value and the interpolation of its variance. The hidden numbers are the network's state:
what the cells of the next timestep inherit ("gene heredity", `diffusion.heredity`).

    GeCA-S    hidden 64, width 768, heads 12, mlp 3072    13,312,584 weights for 11 classes (the default)
    GeCA-XS   hidden 32, width 384, heads 6,  mlp 64       2,255,720

The official program, which published checkpoints need: positions "flat", border "null", firing `Stochastic`; in `Guided` drop "entry"
and shared_draws False. Where guidance is 1 that program hands all on, hands_on "cells": its estimate then grows from step to step.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..nn.automaton import ARITHMETIC, Cellular, Expected, Firing, Stochastic, at_least_one
from ..nn.cell_inference import evolved
from ..nn.cell_transformer import CellTransformer
from ..nn.conditioning import LabelEmbedder, Positions, TimestepEmbedder, counted, embedded, positions
from ..nn.neighbours import Border, neighbourhood
from ..types import Cond, Maps, Network, Output, State, Timesteps


class GeCA(Network, Cellular):
    """`target_channels` of x_t; `hidden` further numbers a cell; `updates` a call, which a sampling may change.

    classes: of cond["labels"] (b, classes), 0 or 1 each, any number of them set; all zero is the null condition.
    image_channels: of cond["image"], of x_t's size, which the cells are told beside their position: for segmentation.
    radius: how many cells away a cell sees (1: its 8 neighbours and itself); None: all cells.
    positions: "grid" tells rows and columns; # Paper: "flat", the place in row-major order; here: "grid", because "flat" depends on
    the image's width; "none" nothing.
    border: # Paper: "null", keys of zero beyond the edge, to which a corner gave 35 to 47 % of its attention; here: "masked".
    hands_on: "hidden" alone; "cells" the estimate as well, which then is not begun anew.
    firing: which cells act at inference. # Paper: `Stochastic`; here: `Expected`, all by their share, because guidance would amplify
    the masks' noise. Training is always stochastic.
    least: training makes a number of updates between it and `updates`, drawn anew for each batch, so that sampling may take any of
    these; None: always `updates`. early: training also hands on the value after some smaller number of updates, as aux["early"], for
    the term `Early` (without gradient no loop is left early, and it is the value itself).
    checkpointing: less memory in training for a third more time. arithmetic: of matrix products at inference; "bfloat16" is
    faster where the machine has instructions for it (environment.has_bfloat16).
    """

    def __init__(
        self,
        target_channels: int = 4,
        hidden: int = 64,
        width: int = 768,
        heads: int = 12,
        mlp: int = 3072,
        updates: int = 12,
        classes: int | None = 0,
        image_channels: int = 0,
        learn_variance: bool = True,
        radius: int | None = 1,
        update_rate: float = 0.5,
        positions: Positions = "grid",
        border: Border = "masked",
        hands_on: Literal["hidden", "cells"] = "hidden",
        dims: Literal[2, 3] = 2,
        checkpointing: bool = False,
        firing: Firing | None = None,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
        least: int | None = None,
        early: bool = False,
    ) -> None:
        super().__init__()
        classes = counted(classes)
        at_least_one(target_channels=target_channels, hidden=hidden, width=width, heads=heads, mlp=mlp, updates=updates)
        if arithmetic not in ARITHMETIC:
            raise InputError(f"--method.network.arithmetic {arithmetic}: cells compute in {' or '.join(ARITHMETIC)}")
        if width % heads:
            raise InputError(f"--method.network.heads {heads}: does not divide the width {width}; take one that does")
        if least is not None and not 1 <= least <= updates:
            raise InputError(f"--method.network.least {least}: training makes between 1 and {updates} updates (--method.network.updates)")
        if early and (least or updates) < 2:
            raise InputError(
                "--method.network.early true: before a single update there is nothing; train with updates of 2 or more (least too)"
            )
        if radius is not None and radius < 1:
            raise InputError(f"--method.network.radius {radius}: cells see at least their neighbours, 1; null stands for all cells")
        self.target_channels, self.image_channels, self.dims = target_channels, image_channels, dims
        self.learn_variance, self.updates, self.update_rate = learn_variance, updates, update_rate
        self.least, self.early = least, early
        self.radius, self.positions, self.border, self.hands_on = radius, positions, border, hands_on
        self.outputs, self.hidden, self.width = target_channels * (2 if learn_variance else 1), hidden, width
        self.firing, self.arithmetic = firing or Expected(), ARITHMETIC[arithmetic]
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(classes, width) if classes else None
        self.image_to_embedding = nn.Linear(image_channels, width, bias=False) if image_channels else None
        self.rule = CellTransformer(target_channels, self.outputs + hidden, width, heads, mlp, checkpointing)

    def encode(self, cond: Cond) -> Cond:
        """The embedding of the labels (b, width), and of the image (b, n, width) with its size for the check in `forward`."""
        known = embedded(self.y_embedder, cond)
        if self.image_to_embedding is None:
            return known
        image = cond["image"]
        if image.ndim != 2 + self.dims or image.shape[1] != self.image_channels:
            raise InputError(
                f"this network takes {self.image_channels} image channels in {self.dims}D, got {tuple(image.shape)}; "
                "set --method.network.image_channels or dims"
            )
        return known | {"image": self.image_to_embedding(image.movedim(1, -1))}  # (b, *s, width)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        self.check(x, cond)
        space = tuple(x.shape[2:])
        c = self.t_embedder(t)
        if "labels" in cond:
            c = c + cond["labels"]
        place = positions(self.positions, space, self.width, x.device)[None]
        if "image" in cond:
            place = place + cond["image"].flatten(1, -2)
        call = self.rule.call(c, place, neighbourhood(space, self.radius, self.border, x.device))
        firing = Stochastic() if self.training else self.firing
        cells = self.born(x, state)
        updates = self.updates if self.least is None or not self.training else among(self.least, self.updates, x)
        fires = [firing.draw(self.update_rate, (len(x), *space), x.device).flatten(1) for _ in range(updates)]
        if not torch.is_grad_enabled():
            out = self.read(evolved(self.rule, cells, fires, call, self.arithmetic), space)
            return replace(out, aux={"early": out.value}) if self.early else out
        early = among(1, updates - 1, x) if self.early and self.training else 0
        aux: dict[str, Tensor] = {}
        for done, fired in enumerate(fires, 1):
            cells = self.rule.updated(cells, fired, call)
            if done == early:
                aux["early"] = self.read(cells, space).value
        return replace(self.read(cells, space), aux=aux)

    def check(self, x: Tensor, cond: Cond) -> None:
        if x.ndim != 2 + self.dims or x.shape[1] != self.target_channels:
            raise InputError(
                f"this network makes {self.target_channels} channels in {self.dims}D, got {tuple(x.shape)} in model space; "
                f"set the network's argument target_channels to {x.shape[1]} (or dims)"
            )
        if "image" in cond and cond["image"].shape[1:-1] != x.shape[2:]:
            raise InputError(
                f"the image has {tuple(cond['image'].shape[1:-1])} pixels and the target {tuple(x.shape[2:])} in model space; "
                "cells see both at one size, so take a codec that keeps it"
            )

    def born(self, x: Tensor, state: State) -> Tensor:
        """Cells before the first update, (b, n, c): all zero but for x_t and the estimate of the central cell, or as inherited."""
        given, centre = x.flatten(2).transpose(1, 2), 0
        for size in x.shape[2:]:
            centre = centre * size + size // 2
        inherited = given.new_zeros(*given.shape[:2], self.hidden) if state is None else state
        if inherited.shape[2] > self.hidden:
            return torch.cat([given, inherited], 2)
        estimate = given.new_zeros(*given.shape[:2], self.outputs)
        estimate[:, centre] = rng.normal((len(x), self.outputs), x.device)
        return torch.cat([given, estimate, inherited], 2)

    def read(self, cells: Tensor, space: tuple[int, ...]) -> Output:
        state = cells[..., -self.hidden :] if self.hands_on == "hidden" else cells[..., self.target_channels :]
        estimate = cells[..., self.target_channels : self.target_channels + self.outputs].transpose(1, 2).unflatten(2, space)
        value, *var = estimate.split(self.target_channels, 1)
        return Output(value, var=var[0] if var else None, state=state)


def among(low: int, high: int, x: Tensor) -> int:
    """One of low .. high, drawn alike, for a whole batch."""
    return min(low + int(rng.uniform((len(x),), x.device)[0] * (high - low + 1)), high)
