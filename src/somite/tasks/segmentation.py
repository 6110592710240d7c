"""Segmentation: the target is a mask, the condition an image, the score everything that is known to matter."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Data
from ..data.preprocess import Preprocess
from ..data.record import Case, Record
from ..diffusion.methods import Method
from ..errors import InputError
from ..metrics import calibration, uncertainty
from ..metrics.overlap import overlap
from ..metrics.surface import surface
from ..predict.ensemble import Result, predict, sample
from ..predict.fusion import Fusion, Mean, decide, votes
from ..types import Cond, Sample
from .task import Glimpse, Row, Scored, Task


class Segmentation(Task):
    """members: samples a case at evaluation. fusion: how they become one map. batch: how many are drawn at a time.

    tolerance: NSD's, in mm for volumes and pixels for images. boundary: half-width in pixels of the band around the
    truth's edge in which calibration is measured apart. bins: of equal width, for calibration errors.
    steps: further numbers of reverse steps to evaluate with one member each, for the curve of Dice against steps.
    glimpses: members a validation case during training.
    """

    def __init__(
        self,
        members: int = 10,
        fusion: Fusion | None = None,
        tolerance: float = 2.0,
        boundary: int = 3,
        bins: int = 15,
        batch: int = 10,
        steps: list[int] | None = None,
        glimpses: int = 1,
    ) -> None:
        if not tolerance >= 0:
            raise InputError(f"--task.tolerance {tolerance}: NSD's tolerance is a distance in mm or px; give a number from 0 on")
        self.members, self.fusion, self.tolerance, self.boundary = members, fusion or Mean(), tolerance, boundary
        self.bins, self.batch, self.steps, self.glimpses = bins, batch, steps or [], glimpses

    def settings(self) -> dict[str, Any]:
        told = {"bins": self.bins, "boundary": self.boundary, "tolerance": self.tolerance}
        return {"members": self.members, "fusion": type(self.fusion).__name__, **told}

    def split(self, batch: Sample) -> tuple[Tensor, Cond]:
        return batch["mask"], {"image": batch["image"]}

    def glimpse(self, method: Method, batch: Sample, case: str) -> Glimpse:
        """Mean Dice over the foreground labels of the whole case; the picture is the slice with most foreground."""
        maps = sample(method, batch["image"], case, self.glimpses, 0, self.batch)
        fused = self.fusion(maps.numpy().swapaxes(1, 2))  # (k, n, *s)
        mask, truth = decide(fused), batch["mask"][:, 0].numpy()  # (n, *s)
        labels = range(1, max(len(fused), 2))
        dice = float(np.mean([overlap(mask == label, truth == label)["dice"] for label in labels]))
        row = int((truth > 0).reshape(len(truth), -1).sum(1).argmax())
        foreground = fused[0] if len(fused) == 1 else 1 - fused[0]
        flat = [torch.as_tensor(middle(a[row])) for a in (truth, mask, foreground)]
        image = batch["image"][row]
        return Glimpse(case, dice, image if image.ndim == 3 else image[..., image.shape[-1] // 2], *flat)

    def predict(self, method: Method, preprocess: Preprocess, record: Record, seed: int, members: int | None = None) -> Result:
        return predict(method, preprocess, record, members or self.members, self.fusion, seed, self.batch)

    def evaluate(self, method: Method, data: Data, cases: Iterable[Case], seed: int) -> Iterator[Scored]:
        for case in cases:
            record = data.read(case)
            scored = self.score(self.predict(method, data.preprocess, record, seed))
            for steps in self.steps:
                scored.curves.append(self.with_steps(method, data, record, steps, seed))
            yield scored

    def score(self, result: Result) -> Scored:
        """All metrics of one case, for each foreground label."""
        scored = Scored([])
        for label in range(1, max(len(result.probability), 2)):
            channel = 0 if len(result.probability) == 1 else label
            one = Label(result, label, channel)
            scored.rows.append(self.row(one))
            scored.bins += self.reliability(one)
            scored.curves += self.by_members(one)
            if len(result.members) > 1:
                counted = calibration.vote_counts(one.votes, one.truth).T.tolist()
                scored.votes += [{**one.key, "votes": k, "pixels": n, "positives": y} for k, (n, y) in enumerate(counted)]
        return scored

    def row(self, one: "Label") -> Row:
        region = calibration.boundary_band(one.truth, self.boundary)
        inside = calibration.foreground(one.probability, one.truth)
        row = {
            **one.key,
            "size": int(one.truth.sum()),
            **overlap(one.mask, one.truth),
            **surface(one.mask, one.truth, one.spacing, self.tolerance),
            "brier": calibration.brier(one.probability, one.truth),
            "nll": calibration.nll(one.probability, one.truth),
            "ece": self.ece(one, ...),
            "ece_foreground": self.ece(one, inside),
            "ece_boundary": self.ece(one, region),
            "nqm": uncertainty.nqm(one.members),
        }
        if len(one.members) > 1:
            row["disagreement"] = uncertainty.disagreement(one.votes)
        return row

    def ece(self, one: "Label", where) -> float:  # noqa: ANN001 - an index: a mask or ...
        return calibration.ece(calibration.bins(one.probability[where], one.truth[where], self.bins))

    def reliability(self, one: "Label") -> Iterator[Row]:
        regions = {
            "all": np.ones_like(one.truth),
            "foreground": calibration.foreground(one.probability, one.truth),
            "boundary": calibration.boundary_band(one.truth, self.boundary),
        }
        for name, region in regions.items():
            counted = calibration.bins(one.probability[region], one.truth[region], self.bins).array()
            for index, (count, confidence, positives) in enumerate(counted.T.tolist()):
                yield {**one.key, "region": name, "bin": index, "count": count, "confidence": confidence, "positives": positives}

    def by_members(self, one: "Label") -> Iterator[Row]:
        """Dice of the first 1, 2, 3, 5, 10 ... members."""
        for count in sorted({n for n in (1, 2, 3, 5, 10, 20, 50, 100) if n < len(one.members)} | {len(one.members)}):
            fused = decide(self.fusion(one.result.members[:count])) == one.label
            yield {**one.key, "axis": "members", "at": count, "dice": overlap(fused, one.truth)["dice"]}

    def with_steps(self, method: Method, data: Data, record: Record, steps: int, seed: int) -> Row:
        """Dice of one member after another number of reverse steps; of all foreground labels on average."""
        before = method.steps
        method.take(steps)
        result = self.predict(method, data.preprocess, record, seed, members=1)
        method.take(before)
        labels = range(1, max(len(result.probability), 2))
        dice = float(np.mean([overlap(result.mask == label, record.truth == label)["dice"] for label in labels]))
        return {"case": record.case.id, "group": record.group, "label": "mean", "axis": "steps", "at": steps, "dice": dice}


class Label:
    """One label of one case, as the metrics want it: binary arrays in the case's own geometry."""

    def __init__(self, result: Result, label: int, channel: int) -> None:
        record = result.record
        self.result, self.label = result, label
        self.truth = record.truth == label
        self.mask = result.mask == label
        self.probability = result.probability[channel].clip(0, 1)
        self.members = result.members[:, channel]
        self.votes = votes(result.members)[:, channel]
        self.spacing = record.spacing or (1.0,) * self.truth.ndim
        value = record.values[label] if record.values else label
        self.key = {"case": record.case.id, "group": record.group, "label": value}


def middle(array: np.ndarray) -> np.ndarray:
    """A plane to look at: the array itself, or the middle one of a volume."""
    return array if array.ndim == 2 else array[..., array.shape[-1] // 2]
