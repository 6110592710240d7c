"""Pretraining: the target is the picture itself, and what is wanted are a network's features. Scored is the pretext: how well it is solved."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import rng
from ..data.dataset import Data
from ..data.record import Case, Record
from ..diffusion.codec import Codec
from ..diffusion.methods import Diffusion, Method
from ..diffusion.restoration import Restoration
from ..errors import InputError
from ..predict.ensemble import Model
from ..rng import seeded
from ..sampling import Sampling
from ..types import Cond, Sample, Shape
from .pretraining_figures import by_level, pixels
from .task import PLACES, Glimpse, Row, Scored, Task
from .view import HIGHER, LOWER, Found, Key, Meaning, Number, Panel, Pictures, Plot, Section, View

MEANINGS = {
    "loss": Meaning(
        "Pretext loss",
        LOWER,
        "the loss that was trained, on patches that were not trained on, at noise that is the same each time",
        share=False,
    ),
    "psnr": Meaning(
        "PSNR (dB)", HIGHER, "peak signal to noise of what the network makes of the spoiled picture, brightness in [0, 1]", share=False
    ),
    "gain": Meaning("Gain (dB)", HIGHER, "by how much that is more than the spoiled picture's own", share=False),
}
LEVELS = (10, 30, 60, 100, 300)


@dataclass
class Seen:
    """One case's patch, what the network was given of it and what it made of that, by timestep; (c, *s) in data space."""

    record: Record
    loss: float
    patch: Tensor
    spoiled: dict[int, Tensor]
    back: dict[int, Tensor]


class Pretraining(Task):
    """patch: the middle of a case that is looked at, a side or one an axis; None: the whole case. draws: of timestep and noise, for the loss.
    levels: the timesteps at which a diffusion is asked to denoise; other pretexts are asked once.
    """

    score_name = "minus pretext loss"
    saves = by_default = ()

    def __init__(self, patch: list[int] | int | None = None, draws: int = 4, levels: Sequence[int] = LEVELS) -> None:
        if draws < 1 or not levels:
            raise InputError(f"--task.draws {draws}, --task.levels {[*levels]}: give one of each at least")
        self.patch, self.draws, self.levels = patch, draws, [*levels]

    def settings(self) -> dict[str, Any]:
        return {"patch": self.patch, "draws": self.draws, "levels": self.levels}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        for one in samples:
            codec.shape(self.shape(one))

    def target(self, sample: Sample) -> Tensor:
        return sample["image"]

    def cond(self, sample: Sample) -> Cond:
        return {name: sample[name] for name in PLACES if name in sample}

    def shape(self, sample: Sample) -> Shape:
        return tuple(sample["image"].shape)

    def glimpse(self, method: Method, sample: Sample, case: str) -> Glimpse:
        patch = self.middle(sample)
        row = len(patch["image"]) // 2
        one = {name: part[row : row + 1] for name, part in patch.items()}
        level = self.levels[len(self.levels) // 2]
        spoiled, back = self.asked(method, one, level, case)
        panels = {"given": one["image"][0], "spoiled": spoiled, "made of it": back}
        return Glimpse(case, -self.loss(method, patch, case), {name: flat(part) for name, part in panels.items()})

    @torch.no_grad()
    def loss(self, method: Method, patch: Sample, case: str) -> float:
        """Mean over draws, the same for each network that is asked."""
        patch, losses = moved(patch, method), []
        for draw in range(self.draws):
            with seeded(0, [f"{case}/{row}/{draw}" for row in range(len(patch["image"]))]):
                losses.append(float(method.loss(self.target(patch), self.cond(patch))["loss"]))
        return float(np.mean(losses))

    @torch.no_grad()
    def asked(self, method: Method, patch: Sample, level: int, case: str) -> tuple[Tensor, Tensor]:
        """A patch (1, c, *s) spoiled, and what the network makes of it, (c, *s) each, on the CPU."""
        patch = moved(patch, method)
        target, cond, codec = self.target(patch), self.cond(patch), method.codec
        with seeded(0, [f"{case}/{level}"]):
            match method:
                case Diffusion():
                    eps = rng.normal(codec.shape(tuple(target.shape)), target.device)
                    ex = method.corrupt(target, torch.tensor([level], device=target.device), eps)
                    alpha, _ = method.schedule.at(level)
                    spoiled, back = ex.x_t / alpha, method.denoise(ex.x_t, ex.t, method.network.encode(cond)).x0
                case Restoration():
                    spoiled = method.spoil(codec.encode(target))
                    back = method.restored(spoiled, cond)[0].x0
                case _:
                    raise InputError(f"{type(method).__name__} spoils no pictures; pretraining is for Diffusion and Restoration")
        shape = tuple(target.shape)
        return codec.decode(spoiled, shape)[0].cpu(), codec.decode(back, shape)[0].cpu()

    def middle(self, sample: Sample) -> Sample:
        """The patch that is looked at."""
        space = sample["image"].shape[2:]
        if self.patch is None:
            return sample
        sides = [self.patch] * len(space) if isinstance(self.patch, int) else self.patch
        if len(sides) != len(space):
            raise InputError(f"--task.patch {self.patch} has {len(sides)} numbers for {len(space)} axes; give one an axis, or one for all")
        for axis, (have, want) in enumerate(zip(space, sides, strict=True), 2):
            sample = {name: part.narrow(axis, max(0, have - want) // 2, min(have, want)) for name, part in sample.items()}
        return sample

    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Seen:
        model = models[0]
        patch = self.middle({**model.cond, "image": model.preprocess.image(record)})
        row = len(patch["image"]) // 2
        one = {name: part[row : row + 1] for name, part in patch.items()}
        levels = self.levels if isinstance(model.method, Diffusion) else [0]
        found = {level: self.asked(model.method, one, level, record.case.id) for level in levels}
        spoiled, back = ({level: pair[i] for level, pair in found.items()} for i in range(2))
        return Seen(record, self.loss(model.method, patch, record.case.id), one["image"][0], spoiled, back)

    def score(self, answer: Seen) -> Scored:
        key: Row = {"case": answer.record.case.id, "group": answer.record.group}
        levels: list[Row] = []
        for level in answer.back:
            before, after = (psnr(part[level], answer.patch) for part in (answer.spoiled, answer.back))
            levels.append({**key, "t": level, "psnr": after, "spoiled": before})
        mean = float(np.mean([row["psnr"] for row in levels]))
        gain = mean - float(np.mean([row["spoiled"] for row in levels]))
        return Scored([{**key, "loss": answer.loss, "psnr": mean, "gain": gain}], {"levels": levels})

    def admit(self, case: Case, kinds: Collection[str]) -> None:
        self.refuse()

    def write(self, answer: Seen, out: Path, kinds: Collection[str]) -> list[Path]:
        self.refuse()

    def refuse(self) -> NoReturn:
        raise InputError("a pretrained run makes features and no pictures; train a probe on it: somite train probe/small --backbone RUN")

    def view(self, found: Found) -> View:
        numbers = [Number(MEANINGS[name], one, large=name != "loss") for name, one in found.summary["metrics"].items()]
        what = "A pretext well solved is no proof of useful features: train a probe on them, or ask `somite analyse features`."
        return View("psnr", MEANINGS["psnr"].name, numbers, notes=[("What this says.", what)])

    def sections(self, found: Found) -> list[Section]:
        levels = found.tables["levels"]
        if len({row["t"] for row in levels}) < 2:
            return []
        plot = Plot(
            "Denoising by noise level",
            by_level(levels),
            "PSNR before and after by timestep",
            "What the network makes of a patch at each timestep, and the noised patch itself; mean over cases.",
        )
        return [Section("levels", "Noise levels", [plot])]

    def pictures(self, answers: Sequence[Seen], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        panels = []
        for one in answers:
            level = list(one.back)[len(one.back) // 2]
            shown = [
                ("given", one.patch),
                (f"spoiled{f', t {level}' if level else ''}", one.spoiled[level]),
                ("made of it", one.back[level]),
            ]
            panels.append([Panel(name, Image.fromarray(pixels(flat(part))), photograph=True) for name, part in shown])
        facts = [[f"PSNR {float(row['psnr']):.1f} dB" for row in some] for some in rows]
        return Pictures(
            panels, facts, [Key("#000000", "lowest brightness, white the highest")], "Of a volume the middle slice of the patch."
        )


def moved(sample: Sample, method: Method) -> Sample:
    device = next(method.parameters()).device
    return {name: part.to(device) for name, part in sample.items()}


def psnr(found: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(max(float(((found - truth) ** 2).mean()), 1e-10))


def flat(part: Tensor) -> Tensor:
    """(c, *s) -> (c, h, w): of a volume the middle slice."""
    return part if part.ndim == 3 else part[..., part.shape[-1] // 2]
