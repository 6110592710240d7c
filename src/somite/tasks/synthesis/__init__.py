"""Synthesis: the target is the image, the condition its labels where it has any, the score how near generated sets come to real ones."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Data
from ...data.images import write_png
from ...data.record import Record
from ...diffusion.codec import Codec
from ...diffusion.methods import Method
from ...errors import InputError
from ...metrics.generation import kid_interval, manifold
from ...metrics.intervals import as_json
from ...nn.features import Pixels, Pretrained
from ...nn.frozen import Frozen, Part
from ...predict.ensemble import Model, sample
from ...rng import seeded
from ...sampling import Sampling
from ...types import Cond, Sample, Shape
from ..labels import check_labels
from ..task import Glimpse, Row, Scored, Task
from ..view import Found, Pictures, View
from . import looks

NEIGHBOURS = 5
DRAWS = 4  # of timestep and noise, for the score that training follows
LABELS = "labels"


@dataclass
class Made:
    """One case and what was generated for its labels, at the network's size, (m, c, h, w) in [0, 1]."""

    record: Record
    real: Tensor  # (c, h, w)
    images: Tensor
    features: tuple[Tensor, Tensor]  # (1, d) of the real image, (m, d)


class Synthesis(Task):
    """labelled: images are asked for by their labels; else by nothing. members: images generated for each case of an evaluation.

    extractor: a local folder of a vision model that transformers opens (DINOv2 say), by whose features sets are compared; None
    compares pixels at 8 x 8, which says little more than whether colours and layout are right. Every number names its extractor.
    """

    score_name = "minus denoising error"
    saves = by_default = ("image",)

    def __init__(self, labelled: bool = False, members: int = 1, extractor: Part | None = None, batch: int = 16) -> None:
        self.labelled, self.members, self.batch = labelled, members, batch
        self.needs = self.given = frozenset({"image", LABELS} if labelled else {"image"})
        self.extractor: Any = Frozen(Pixels() if extractor is None else Pretrained(extractor.source))

    def settings(self) -> dict[str, Any]:
        return {"extractor": self.extractor.module.name}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        """Images that the codec does not take; labels that cannot be learned."""
        if self.labelled:
            check_labels(data)
        for one in samples:
            codec.shape(self.shape(one))

    def target(self, sample: Sample) -> Tensor:
        return sample["image"]

    def cond(self, sample: Sample) -> Cond:
        return {LABELS: sample[LABELS] if self.labelled else sample["image"].new_zeros(len(sample["image"]), 0)}

    def shape(self, sample: Sample) -> Shape:
        return tuple(sample["image"].shape)

    @torch.no_grad()
    def glimpse(self, method: Method, sample_: Sample, case: str) -> Glimpse:
        """The loss at the same timesteps and noise at each validation, and one image of this case's labels."""
        device = next(method.parameters()).device
        target, cond = (self.target(sample_)[:1].to(device), {name: part[:1].to(device) for name, part in self.cond(sample_).items()})
        losses = []
        for draw in range(DRAWS):
            with seeded(0, [f"{case}/{draw}"]):
                losses.append(float(method.loss(target, cond)["loss"]))
        drawn = sample(method, self.cond(sample_), self.shape(sample_), case, 1, 0, self.batch)[0, 0]
        return Glimpse(case, -float(np.mean(losses)), {"real": sample_["image"][0], "generated": drawn})

    @torch.no_grad()
    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Made:
        model = models[0]
        if model.shape[0] != 1:
            raise InputError(f"{record.case.id}: a volume, but images are generated one by one; give 2D images")
        real = model.preprocess.image(record)
        images = sample(model.method, model.cond, model.shape, record.case.id, sampling.members, sampling.seed, self.batch)[:, 0]
        images = images.clamp(0, 1)
        return Made(record, real[0], images, (self.extractor(real), self.extractor(images)))

    def score(self, answer: Made) -> Scored:
        """How brightness and contrast differ from the case's own image; the features of both are a table of their own."""
        real, images = answer.real, answer.images
        key = {"case": answer.record.case.id, "group": answer.record.group}
        gaps = {
            "brightness": float((images.mean((1, 2, 3)) - real.mean()).abs().mean()),
            "contrast": float((images.std((1, 2, 3)) - real.std()).abs().mean()),
        }
        kinds = (("real", answer.features[0]), ("generated", answer.features[1]))
        table = [{**key, "kind": kind, **{f"f{i}": value for i, value in enumerate(row.tolist())}} for kind, rows in kinds for row in rows]
        return Scored([{**key, **gaps}], {"features": table})

    def conclude(self, rows: Sequence[Row], tables: dict[str, list[Row]]) -> dict[str, Any]:
        real, made = (features(tables["features"], kind) for kind in ("real", "generated"))
        if min(len(real), len(made)) <= NEIGHBOURS:
            return {"sets": {}}
        found = {"kid": as_json(kid_interval(real, made))}
        return {
            "sets": found | {name: {"mean": value, "low": None, "high": None} for name, value in manifold(real, made, NEIGHBOURS).items()}
        }

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        return [f"{case}_generated-{index:02d}" for index in range(members)]

    def write(self, answer: Made, out: Path, kinds: Collection[str]) -> list[Path]:
        paths = [out / f"{answer.record.case.id}_generated-{index:02d}.png" for index in range(len(answer.images))]
        for path, image in zip(paths, answer.images, strict=True):
            write_png(path, looks.pixels(image))
        return paths

    def view(self, found: Found) -> View:
        return looks.view(found)

    def pictures(self, answers: Sequence[Made], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        return looks.pictures([(one.real, one.images) for one in answers])


def features(table: Sequence[Row], kind: str) -> np.ndarray:
    """(n, d) of one kind, from rows whose values may be text."""
    return np.array([[float(row[name]) for name in row if name[0] == "f" and name[1:].isdigit()] for row in table if row["kind"] == kind])
