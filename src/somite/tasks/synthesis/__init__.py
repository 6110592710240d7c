"""Synthesis: the target is the image, the condition its labels where it has any, the score how near generated sets come to real ones."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Data
from ...data.digest import digest
from ...data.images import write_png
from ...data.record import Case, Record
from ...diffusion.codec import Codec
from ...diffusion.methods import Method
from ...errors import InputError
from ...nn.frozen import Frozen, Part
from ...predict.ensemble import Model, sample
from ...rng import seeded
from ...sampling import Sampling
from ...types import Cond, Sample, Shape
from ..labels import check_labels
from ..task import Arrays, Beside, Glimpse, Opened, Row, Scored, Task
from ..view import Found, Pictures, Section, View
from . import looks, sets
from .extractors import extractor_of, features_of

CHUNK = 64  # training images whose features are made, and kept, at a time
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

    extractor: by whose features sets are compared: a run of classification or one that trained an autoencoder, or a local folder of a
    vision model that transformers opens (DINOv2 say). None compares pixels at 8 x 8, which says little more than whether colours and
    layout are right. Every number names its extractor. batch: how many images are drawn, and looked at, at a time.
    """

    score_name = "minus denoising error"
    saves = by_default = kept = ("image",)

    def __init__(self, labelled: bool = False, members: int = 1, extractor: Part | None = None, batch: int = 16) -> None:
        self.labelled, self.members, self.batch = labelled, members, batch
        self.needs = self.given = frozenset({"image", LABELS} if labelled else {"image"})
        self.source = extractor

    @cached_property
    def extractor(self) -> Any:  # noqa: ANN401 - a Frozen, whose module has a name
        """Opened when it is first asked for: most samplings compare nothing."""
        return Frozen(extractor_of(self.source))

    def settings(self) -> dict[str, Any]:
        return {"extractor": self.extractor.module.name}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        """Images that the codec does not take; labels that cannot be learned; an extractor that does not open."""
        self.settings()
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
        looking = self.extractor.to(next(model.method.parameters()).device).module
        return Made(record, real[0], images, (features_of(looking, real, self.batch), features_of(looking, images, self.batch)))

    def score(self, answer: Made) -> Scored:
        """How brightness and contrast differ from the case's own image; the features of both are a table of their own."""
        real, images = answer.real, answer.images
        key = {"case": answer.record.case.id, "group": answer.record.group}
        gaps = {
            "brightness": float((images.mean((1, 2, 3)) - real.mean()).abs().mean()),
            "contrast": float((images.std((1, 2, 3)) - real.std()).abs().mean()),
        }
        kinds = zip((sets.REAL, sets.GENERATED), answer.features, strict=True)
        table = [{**key, "kind": kind, **{f"f{i}": value for i, value in enumerate(row.tolist())}} for kind, rows in kinds for row in rows]
        return Scored([{**key, **gaps}], {"features": table})

    def compared(self, tables: dict[str, list[Row]], beside: Beside) -> dict[str, list[Row]]:
        """The table "neighbours", where the training images are at hand."""
        data = beside.trained
        try:
            train = data.cases("train")
            chunks = [train[at : at + CHUNK] for at in range(0, len(train), CHUNK)]
            known = [
                beside.keep(digest(chunk), lambda chunk=chunk: self.looked_at(chunk, data))["features"] for chunk in beside.progress(chunks)
            ]
        except (InputError, OSError) as error:
            print(f"warning: the training images are not at hand, so memorisation is not measured: {error}", flush=True)
            return {}
        seen = {case.id for case in set(train) & set(beside.cases)}
        return {"neighbours": sets.neighbours(tables["features"], np.concatenate(known), [case.id for case in train], seen)}

    def looked_at(self, cases: Sequence[Case], data: Data) -> Arrays:
        """{"features": (n, d)} of the cases' own images."""
        images = [data.preprocess.image(data.read(case))[0] for case in cases]
        return {"features": features_of(self.extractor.module, images, self.batch).numpy()}

    def conclude(self, rows: Sequence[Row], tables: dict[str, list[Row]]) -> dict[str, Any]:
        return sets.conclude(tables, self.extractor.module.name)

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        return [f"{case}_generated-{index:02d}" for index in range(members)]

    def write(self, answer: Made, out: Path, kinds: Collection[str]) -> list[Path]:
        paths = [out / f"{answer.record.case.id}_generated-{index:02d}.png" for index in range(len(answer.images))]
        for path, image in zip(paths, answer.images, strict=True):
            write_png(path, looks.pixels(image))
        return paths

    def view(self, found: Found) -> View:
        return looks.view(found)

    def drawn(self, found: Found, run: Opened) -> list[Section]:
        from .sheets import sections  # with matplotlib, which training does not need

        return sections(self, found, run)

    def pictures(self, answers: Sequence[Made], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        return looks.pictures([(one.real, one.images) for one in answers])
