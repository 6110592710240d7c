"""Probes: a small head on the features of a network that another run has trained, frozen or trained on (arXiv 2501.19265, vox2vec 2307.14725).

The picture is noised to a few timesteps, the backbone is asked once at each, and the head reads what its maps hold. What is scored are the
features: a head of 1x1x1 convolutions sees no neighbours. Fine-tuned or begun afresh, the same network is the pretraining's own control.

    linear head on c channels in all and K classes: c K + K weights
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .. import rng
from ..diffusion.codec import Codec
from ..diffusion.features import Together, features, field
from ..diffusion.methods import Diffusion
from ..diffusion.noise_level import Window, timestep, window_of
from ..diffusion.opened import opened
from ..errors import InputError
from ..nn.frozen import Frozen, Part
from ..nn.pyramid import Backbone, Pyramid, Side
from ..nn.pyramid_heads import Head, head_for
from ..types import Cond, Maps, Network, Output, State, Timesteps

Noise = Literal["fixed", "fresh", "none"]
Tune = Literal["nothing", "decoder", "all"]
FIELD = "noise/"  # entries of an encoded condition: the noise of a draw and timestep, where it belongs to places


class Probe(Network):
    """Feed-forward: x and t are ignored; cond["image"] (b, c, h, w, d), and cond["coordinates"] where the backbone takes them, -> logits
    (b, mask_channels, h, w, d).

    backbone: the run whose features are read. timesteps: as such, or as noise levels, "131 HU" or "80 SNR"; [0] for backbones that were
    trained without noise. side: of the backbone. together: the timesteps' maps side by side, or their mean. noise: "fixed", one field a
    timestep that belongs to places, so that windows which overlap see the same; "fresh", drawn anew in every answer, so that members
    differ; "none", the picture as the schedule leaves it. draws: of noise, whose features are averaged. seed: of fixed noise. In training
    "fixed" is one field of the patch's size, whichever its place.
    placed: the coordinates themselves are features too.
    tune: what of the backbone is trained beside the head: nothing, its way up, or all of it, from step `thaw` on. afresh: it begins
    without its weights, at random, and stays so where nothing is tuned: the controls.
    """

    def __init__(
        self,
        backbone: Part,
        mask_channels: int = 1,
        head: Head = "non-linear",
        timesteps: Sequence[int | str] = (10, 30, 60),
        side: Side = "encoder",
        together: Together = "concat",
        noise: Noise = "fixed",
        draws: int = 1,
        seed: int = 0,
        placed: bool = False,
        tune: Tune = "nothing",
        thaw: int = 0,
        afresh: bool = False,
    ) -> None:
        super().__init__()
        run = opened(Path(backbone.source), weights=not afresh)
        if not isinstance(run.method.network, Backbone):
            raise InputError(
                f"{run.path} has a {type(run.method.network).__name__}, which gives no features; name a run of ctpretrain or vox2vec"
            )
        if draws < 1 or (draws > 1 and noise == "none"):
            raise InputError(f"--method.network.draws {draws} with noise {noise}: one draw at least, and several only where there is noise")
        if tune == "decoder" and side == "encoder":
            raise InputError(
                "--method.network.tune decoder trains a way up that --method.network.side encoder does not read; set side both"
            )
        self.schedule = run.method.schedule if isinstance(run.method, Diffusion) else None
        self.frame = Frozen(run.method.codec)
        self.timesteps = self.chosen(timesteps, noise, window_of(run.data.preprocess.normalise) or Window())
        self.side: Side = side
        self.together: Together = together
        self.noise, self.draws, self.seed, self.placed, self.thaw = noise, draws, seed, placed, thaw
        self.held, self.tuned = held(run.method.network, side, tune, afresh), tune != "nothing"
        count = len(self.timesteps) if together == "concat" else 1
        channels = [count * width for width in run.method.network.channels(side)]
        channels[0] += 3 * placed
        self.head = head_for(head, channels, mask_channels)
        if thaw:
            self.register_buffer("trained", torch.zeros((), dtype=torch.long))  # batches that the head has seen

    def chosen(self, timesteps: Sequence[int | str], noise: Noise, window: Window) -> list[int]:
        if self.schedule is not None:
            return [timestep(level, self.schedule, window) for level in timesteps]
        if [*timesteps] != [0] or noise != "none":
            raise InputError(
                "this backbone was trained without noise and knows no timesteps: set --method.network.timesteps [0] and --method.network.noise none"
            )
        return [0]

    @property
    def codec(self) -> Codec:
        """How the backbone's method sees pictures."""
        return self.frame.module  # type: ignore[return-value]

    @property
    def backbone(self) -> Backbone:
        return self.held.module if isinstance(self.held, Frozen) else self.held  # type: ignore[return-value]

    def whole(self, cond: Cond) -> Cond:
        """With the noise that belongs to places, where it is fixed."""
        if self.noise != "fixed" or self.schedule is None:
            return cond
        image = cond["image"]
        fields = {
            f"{FIELD}{draw}/{t}": field(tuple(image.shape[1:]), self.seed, t, str(draw), image.device).expand(len(image), *image.shape[1:])
            for draw in range(self.draws)
            for t in self.timesteps
        }
        return {**cond, **fields}

    def encode(self, cond: Cond) -> Cond:
        return cond if any(name.startswith(FIELD) for name in cond) else self.whole(cond)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.thawed()):
            maps = self.features(cond)
        if self.placed:
            if "coordinates" not in cond:
                raise InputError("--method.network.placed reads coordinates, and the data bring none; set --data.coordinates")
            maps = [torch.cat([maps[0], cond["coordinates"].to(maps[0].dtype)], 1), *maps[1:]]
        return Output(self.head(maps))

    def thawed(self) -> bool:
        """Whether the backbone is trained in this step."""
        if not self.tuned or not self.thaw:
            return self.tuned
        if self.training:
            self.trained += 1
        return int(self.trained) > self.thaw

    def features(self, cond: Cond) -> Pyramid:
        """The backbone's maps, averaged over draws of noise."""
        x0, known = self.codec.encode(cond["image"]), {name: part for name, part in cond.items() if name == "coordinates"}
        if self.schedule is None:
            known["image"] = cond["image"]
        total: Pyramid = []
        for draw in range(self.draws):
            found = features(self.backbone, x0, known, self.schedule, self.timesteps, self.drawn(cond, draw), self.side, self.together)
            total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        return total if self.draws == 1 else [part / self.draws for part in total]

    def drawn(self, cond: Cond, draw: int) -> list[Tensor] | None:
        if self.noise == "none":
            return None
        image = cond["image"]
        if self.noise == "fresh":
            return [rng.normal(tuple(image.shape), image.device) for _ in self.timesteps]
        return [cond[f"{FIELD}{draw}/{t}"] for t in self.timesteps]


def held(backbone: Backbone, side: Side, tune: Tune, afresh: bool) -> Backbone | Frozen:
    """Frozen, or (a run's own, in its weights) with gradients for what is tuned and read."""
    if tune == "nothing" and not afresh:
        return Frozen(backbone)
    backbone.after_pretraining()
    backbone.requires_grad_(tune == "all")
    _, up, unread = backbone.parts()
    for part in up:
        part.requires_grad_(side != "encoder" and tune != "nothing")
    for part in unread:
        part.requires_grad_(False)
    return backbone
