"""Classification: the target is a vector of labels, the condition an image, the answer a probability for each class."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.dataset import Data
from ...data.record import Record
from ...diffusion.classes import AnyOf
from ...diffusion.codec import Codec
from ...diffusion.methods import Method
from ...errors import InputError
from ...predict.ensemble import Model, sample
from ...predict.fusion import Fusion, Mean
from ...sampling import Sampling
from ...types import Cond, Sample, Shape
from ..labels import check_labels
from ..task import Glimpse, Row, Scored, Task
from ..view import Found, Pictures, Section, View
from . import outputs, scores, whole
from .answer import Classified

ANY = '--method.codec somite.diffusion.classes.AnyOf --method.terms "{labels: {class_path: somite.diffusion.terms.BinaryCrossEntropy}}"'


class Classification(Task):
    """The answer is the most probable class; with the codec `AnyOf`, whose labels do not exclude each other, every label at p >= 0.5.

    classes: how many; in a recipe null is as many as the data have, elsewhere two. members: samples a case; fusion: how they become one.
    bins: of equal width, for the calibration error. batch: how many slices are answered at a time; of a volume that a 2D network sees
    slice by slice, the probabilities are the mean over slices.
    """

    needs = frozenset({"image", "labels"})
    score_name = "log-likelihood"
    keys = ("case", "group", "truth", "answer")
    saves = by_default = ("answer",)
    fields = ("answer", "probability", "spread")

    def __init__(self, classes: int | None = None, members: int = 1, fusion: Fusion | None = None, bins: int = 15, batch: int = 32) -> None:
        self.classes, self.members, self.fusion = 2 if classes is None else classes, members, fusion or Mean()
        self.bins, self.batch = bins, batch

    def settings(self) -> dict[str, Any]:
        return {"fusion": type(self.fusion).__name__, "bins": self.bins}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        """Classes that do not fit the method or have no training case; images that are there twice, under different labels."""
        names, train = data.source.classes, data.cases("train")
        if len(names) != codec.maps or len(names) != self.classes:
            raise InputError(
                f"{data.path} has {len(names)} classes ({', '.join(names)}) but the recipe is for {self.classes} and its codec for "
                f"{codec.maps}; leave `classes` null in the task, the network and the codec"
            )
        check_labels(data)
        for one, case in zip(samples, [*train, *data.cases("val")], strict=True):
            if not isinstance(codec, AnyOf) and float(one["labels"][0].sum()) != 1:
                raise InputError(
                    f"{case.id} has {int(one['labels'][0].sum())} labels where one was wanted: for any number of them add {ANY}"
                )

    def target(self, sample: Sample) -> Tensor:
        return sample["labels"]

    def cond(self, sample: Sample) -> Cond:
        return {"image": sample["image"]}

    def shape(self, sample: Sample) -> Shape:
        return (len(sample["image"]), self.classes)

    def glimpse(self, method: Method, sample_: Sample, case: str) -> Glimpse:
        p = sample(method, self.cond(sample_), self.shape(sample_), case, 1, 0, self.batch)[0].mean(0)
        y = self.target(sample_)[0]
        image = sample_["image"][len(sample_["image"]) // 2]
        shown = image if image.ndim == 3 else image[..., image.shape[-1] // 2]
        score = -scores.nll(p.numpy(), y.numpy(), not isinstance(method.codec, AnyOf))
        return Glimpse(case, score, {"image": shown, "truth": bars(y), "probability": bars(p)})

    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Classified:
        drawn = [
            sample(one.method, one.cond, one.shape, record.case.id, sampling.members, sampling.seed, self.batch).mean(1) for one in models
        ]
        return Classified.fused(record, torch.cat(drawn).numpy(), self.fusion, not isinstance(models[0].method.codec, AnyOf))

    def probabilities(self, answer: Classified) -> tuple[Any, Any]:
        return answer.maps, answer.truths

    def score(self, answer: Classified) -> Scored:
        return Scored([scores.row(answer)], {"probabilities": list(scores.each(answer))})

    def conclude(self, rows: Sequence[Row], tables: dict[str, list[Row]]) -> dict[str, Any]:
        return whole.conclude(tables["probabilities"], self.bins)

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        return [f"{case}{outputs.ENDING}"]

    def write(self, answer: Classified, out: Path, kinds: Collection[str]) -> list[Path]:
        return [outputs.write(answer, out)]

    def gather(self, out: Path) -> list[Path]:
        return outputs.gather(out)

    def view(self, found: Found) -> View:
        from .view import view  # with matplotlib, which training does not need

        return view(found)

    def sections(self, found: Found) -> list[Section]:
        from .view import sections

        return sections(found)

    def pictures(self, answers: Sequence[Classified], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        from .pictures import pictures

        return pictures(answers, data.preprocess.axis)


def bars(p: Tensor) -> Tensor:
    """(k,) -> (8 k, 64): a bar a class, from above."""
    return (torch.arange(64) / 64 < p[:, None]).float().repeat_interleave(8, 0)
