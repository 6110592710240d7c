"""Reconstruction: the target is the case itself, an image, its mask or both, and has to come back. What autoencoders are trained on."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.dataset import Data
from ..data.images import write_png
from ..data.record import Record
from ..diffusion.codec import Codec
from ..diffusion.methods import Method
from ..errors import InputError
from ..metrics.overlap import overlap
from ..predict.ensemble import Model, sample
from ..predict.fusion import decide
from ..sampling import Sampling
from ..types import Cond, Sample, Shape
from .task import Glimpse, Row, Scored, Task
from .view import HIGHER, LOWER, Found, Key, Meaning, Number, Panel, Pictures, View

Of = Literal["image", "mask", "both"]
MEANINGS = {
    "dice": Meaning("Dice", HIGHER, "overlap of the mask and the same mask rebuilt, mean over the labels"),
    "psnr": Meaning("PSNR (dB)", HIGHER, "peak signal to noise of the rebuilt image, whose brightness lies in [0, 1]", share=False),
    "mae": Meaning("Absolute error", LOWER, "mean difference of brightness, or of a label's share, over all pixels"),
}


@dataclass
class Rebuilt:
    """One case at the network's size, n slices: what was given and what came back, decoded."""

    record: Record
    image: Tensor | None  # (n, c, h, w) in [0, 1]
    mask: Tensor | None  # (n, h, w) label indices
    truth: Tensor  # (n, maps, h, w): image, then the mask's shares
    maps: Tensor  # (n, maps, h, w)


class Reconstruction(Task):
    """of: the target is the image in [0, 1], the mask, or the image's channels with the mask behind them (codec `Beside`).

    Everything is measured at the network's size. batch: how many slices are rebuilt at a time.
    """

    score_name = "minus absolute error"
    saves = by_default = ("image",)

    def __init__(self, of: Of = "mask", batch: int = 10) -> None:
        self.of, self.batch = of, batch
        self.needs = frozenset({"image"} if of == "image" else {"image", "mask"})
        self.given = self.needs

    def settings(self) -> dict[str, Any]:
        return {"of": self.of}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        for one in samples:
            codec.shape(self.shape(one))

    def target(self, sample: Sample) -> Tensor:
        parts = {"image": ["image"], "mask": ["mask"], "both": ["image", "mask"]}[self.of]
        return torch.cat([sample[name].float() for name in parts], 1)

    def cond(self, sample: Sample) -> Cond:
        return {"target": self.target(sample)}

    def shape(self, sample: Sample) -> Shape:
        return tuple(self.target(sample).shape)

    def glimpse(self, method: Method, sample_: Sample, case: str) -> Glimpse:
        maps = sample(method, self.cond(sample_), self.shape(sample_), case, 1, 0, self.batch)[0]
        truth = method.codec.probabilities(self.target(sample_).to(next(method.parameters()).device)).cpu()
        row = int(truth.flatten(1).std(1).argmax())  # the slice with most to see
        shown = {name: part[row, -1] for name, part in (("given", truth), ("rebuilt", maps))}
        return Glimpse(case, -float((maps - truth).abs().mean()), shown)

    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Rebuilt:
        model = models[0]
        maps = sample(model.method, model.cond, model.shape, record.case.id, 1, sampling.seed, self.batch)[0]
        target = model.cond["target"]
        truth = model.method.codec.probabilities(target.to(next(model.method.parameters()).device)).cpu()
        image = None if self.of == "mask" else target if self.of == "image" else target[:, :-1]
        return Rebuilt(record, image, None if self.of == "image" else target[:, -1].long(), truth, maps)

    def score(self, answer: Rebuilt) -> Scored:
        row: Row = {"case": answer.record.case.id, "group": answer.record.group}
        channels = 0 if answer.image is None else answer.image.shape[1]
        if answer.mask is not None:
            shares = answer.maps[:, channels:]
            mask, truth = decide(shares.movedim(1, 0).numpy()), answer.mask.numpy()
            row["dice"] = float(np.mean([overlap(mask == one, truth == one)["dice"] for one in range(1, max(shares.shape[1], 2))]))
        if answer.image is not None:
            error = float(((answer.maps[:, :channels] - answer.image) ** 2).mean())
            row["psnr"] = -10 * math.log10(max(error, 1e-10))
        return Scored([{**row, "mae": float((answer.maps - answer.truth).abs().mean())}])

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        if self.of != "image":
            raise InputError("this run rebuilds masks, which images to predict do not have; use `somite evaluate` to see how well")
        return [f"{case}_rebuilt"]

    def write(self, answer: Rebuilt, out: Path, kinds: Collection[str]) -> list[Path]:
        path = out / f"{answer.record.case.id}_rebuilt.png"
        write_png(path, pixels(answer.maps[len(answer.maps) // 2]))
        return [path]

    def view(self, found: Found) -> View:
        numbers = [Number(MEANINGS[name], one, large=True) for name, one in found.summary["metrics"].items()]
        first = next(name for name in MEANINGS if name in found.summary["metrics"])
        notes = [("Size.", "Everything is measured at the network's size, before anything is resized.")]
        return View(first, MEANINGS[first].name, numbers, notes=notes)

    def pictures(self, answers: Sequence[Rebuilt], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        panels = []
        for one in answers:
            row = int(one.truth.flatten(1).std(1).argmax())
            shown = [("given", one.truth[row]), ("rebuilt", one.maps[row])]
            if one.image is not None:
                width = one.image.shape[1]
                images = [(f"image, {name}", part[:width]) for name, part in shown]
            else:
                width, images = 0, []
            masks = [] if one.mask is None else [(f"mask, {name}", foreground(part[width:])) for name, part in shown]
            panels.append([Panel(name, Image.fromarray(pixels(part)), photograph=True) for name, part in (*images, *masks)])
        facts = [[f"{name} {row[name]}" for row in some for name in MEANINGS if name in row] for some in rows]
        return Pictures(
            panels, facts, [Key("#000000", "a mask's picture: background black")], "At the network's size; of a volume one slice."
        )


def foreground(shares: Tensor) -> Tensor:
    """(k, h, w) -> (1, h, w): the share of any label."""
    return shares[:1] if len(shares) == 1 else 1 - shares[:1]


def pixels(image: Tensor) -> np.ndarray:
    """(1 or 3, h, w) in [0, 1] -> (h, w, 3) uint8."""
    return np.rint(255 * image.clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()).astype(np.uint8)
