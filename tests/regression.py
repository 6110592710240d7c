"""A second task, of nothing that segmentation knows: the smooth part of an image from the image itself. Three channels, no masks."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from somite.data.images import write_png
from somite.predict.ensemble import sample
from somite.rng import seeded
from somite.tasks.task import Glimpse, Scored, Task, Variation
from somite.tasks.view import HIGHER, LOWER, Key, Meaning, Number, Panel, Pictures, View
from somite.types import Network, Output


class Small(Network):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(6, width, 3, padding=1)
        self.second = torch.nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x, t, cond, state=None):
        return Output(self.second(torch.relu(self.first(torch.cat([x, cond["image"]], 1)))))


@dataclass
class Smoothed:
    record: object
    image: np.ndarray  # (3, h, w), the mean of the members
    truth: np.ndarray


def smooth(image: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), 5, 1)


class Smoothing(Task):
    score_name = "minus squared error"
    saves = by_default = ("image",)

    def __init__(self, members: int = 2) -> None:
        self.members = members

    def target(self, sample):
        return smooth(sample["image"])

    def cond(self, sample):
        return {"image": sample["image"]}

    def shape(self, sample):
        return tuple(sample["image"].shape)

    def glimpse(self, method, given, case):
        made = sample(method, self.cond(given), self.shape(given), case, 1, 0, 4)[0]
        error = float(((made - self.target(given)) ** 2).mean())
        return Glimpse(case, -100 * error - 2, {"given": given["image"][0], "smoothed": made[0]})  # always below -1

    def answer(self, models, record, sampling, keep=False):
        made = torch.cat([sample(m.method, m.cond, m.shape, record.case.id, sampling.members, sampling.seed, 4)[:, 0] for m in models])
        truth = smooth(torch.from_numpy(record.image)[None])[0].numpy()
        return Smoothed(record, made.mean(0).numpy(), truth)

    def score(self, answer):
        error = float(((answer.image - answer.truth) ** 2).mean())
        key = {"case": answer.record.case.id, "group": answer.record.group}
        return Scored([{**key, "psnr": -10 * math.log10(error), "mae": float(np.abs(answer.image - answer.truth).mean())}])

    def variations(self, method):
        return [Variation("members", 1, {"members": 1})]

    def point(self, answer, variation):
        return {"case": answer.record.case.id, "axis": variation.axis, "at": variation.at, "psnr": self.score(answer).rows[0]["psnr"]}

    def conclude(self, rows, tables):
        return {"worst": min(row["psnr"] for row in rows)}

    def files(self, case, kinds, data, codec, members):
        return [f"{case}_smooth"]

    def write(self, answer, out, kinds):
        path = out / f"{answer.record.case.id}_smooth.png"
        write_png(path, np.rint(np.moveaxis(answer.image.clip(0, 1), 0, -1) * 255).astype(np.uint8))
        return [path]

    def view(self, found):
        meanings = {"psnr": Meaning("PSNR (dB)", HIGHER, "peak signal to noise", share=False), "mae": Meaning("MAE", LOWER, "mean error")}
        numbers = [Number(meanings[name], one, large=True) for name, one in found.summary["metrics"].items()]
        return View("psnr", "PSNR", numbers, notes=[("The worst.", f"{found.summary['worst']:.2f} dB")])

    def pictures(self, answers, rows, data):
        panels = [
            [Panel(name, Image.fromarray(np.rint(np.moveaxis(a.clip(0, 1), 0, -1) * 255).astype(np.uint8)), photograph=True)]
            for one in answers
            for name, a in (("smoothed", one.image),)
        ]
        return Pictures(panels, [[] for _ in answers], [Key("#000000", "ink")], "Of every case the mean of its members.")


def write_images(root, n=10, size=(24, 20)):
    """Images alone, in a folder of their own: large patches of colour under noise."""
    with seeded(0, ["images"]):
        for i in range(n):
            patches = F.interpolate(torch.rand(1, 3, 3, 3), size=size, mode="nearest")[0]
            image = (patches + 0.1 * torch.randn(3, *size)).clamp(0, 1)
            write_png(root / f"p{i}.png", (255 * image.movedim(0, -1)).round().byte().numpy())
    return root
