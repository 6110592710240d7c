"""Segmentation: the target is a mask, the condition an image, the score everything that is known to matter."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Data
from ...data.record import Case, Record
from ...diffusion.codec import Codec
from ...diffusion.methods import Method
from ...errors import InputError
from ...metrics.overlap import overlap
from ...metrics.risk import risks
from ...predict.control import Controlled
from ...predict.ensemble import Model, Result, answer, sample
from ...predict.fusion import Fusion, Mean, decide
from ...sampling import Sampling
from ...types import LESSON, Cond, Sample, Shape
from ..task import PLACES, Glimpse, Row, Scored, Task, Variation
from ..view import Found, Pictures, Section, View
from . import outputs, scores, whole
from .collapse import diagnose


class Segmentation(Task):
    """members: samples a case at evaluation. fusion: how they become one map. batch: how many are drawn at a time.

    tolerance: NSD's, in mm for volumes and pixels for images. boundary: half-width in pixels of the band around the
    truth's edge in which calibration is measured apart. bins: of equal width, for calibration errors.
    steps: further numbers of reverse steps to evaluate with one member each, for the curve of Dice against steps.
    glimpses: members a validation case during training.
    """

    needs = frozenset({"image", "mask"})
    score_name = "Dice"
    keys = ("case", "group", "label", "size", "tercile")
    saves = outputs.KINDS
    by_default = fields = ("mask", "probability", "spread")

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
        return {"fusion": type(self.fusion).__name__, "bins": self.bins, "boundary": self.boundary, "tolerance": self.tolerance}

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        """Classes that do not fit the codec, masks that are all empty."""
        labels, maps = data.labels, codec.maps
        if labels is not None and maps != len(labels) and not (maps == 1 and len(labels) == 2):
            raise InputError(
                f"--data.labels names {len(labels)} classes but the method's codec has {maps} channel(s); add "
                f"--method.codec somite.diffusion.codec.OneHot --method.codec.classes {len(labels)} --method.network.mask_channels {len(labels)}"
            )
        count = len(data.cases("train"))
        foreground = [bool(sample["mask"].any()) for sample in samples]
        if not any(foreground[:count]):
            raise InputError(
                f"{data.path}: none of the {count} training masks has any foreground; check that the masks are the right files"
            )

    def split(self, sample: Sample) -> tuple[Tensor, Cond]:
        return self.target(sample), {**self.cond(sample), **{name: sample[name] for name in LESSON if name in sample}}

    def target(self, sample: Sample) -> Tensor:
        return sample["mask"]

    def cond(self, sample: Sample) -> Cond:
        return {name: sample[name] for name in ("image", *PLACES) if name in sample}

    def shape(self, sample: Sample) -> Shape:
        image = sample["image"]
        return (len(image), 1, *image.shape[2:])

    def glimpse(self, method: Method, sample_: Sample, case: str) -> Glimpse:
        """Mean Dice over the foreground labels of the whole case; the picture is the slice with most foreground."""
        maps = sample(method, self.cond(sample_), self.shape(sample_), case, self.glimpses, 0, self.batch)
        fused = self.fusion(maps.numpy().swapaxes(1, 2))  # (k, n, *s)
        mask, truth = decide(fused), sample_["mask"][:, 0].numpy()  # (n, *s)
        labels = range(1, max(len(fused), 2))
        dice = float(np.mean([overlap(mask == label, truth == label)["dice"] for label in labels]))
        row = int((truth > 0).reshape(len(truth), -1).sum(1).argmax())
        foreground = fused[0] if len(fused) == 1 else 1 - fused[0]
        image = sample_["image"][row]
        panels = {"image": image if image.ndim == 3 else image[..., image.shape[-1] // 2]}
        panels |= {
            name: torch.as_tensor(middle(a[row])) for name, a in (("truth", truth > 0), ("mask", mask > 0), ("probability", foreground))
        }
        return Glimpse(case, dice, panels)

    def diagnose(self, glimpses: Sequence[Glimpse]) -> str | None:
        return diagnose(glimpses)

    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Result:
        # nnU-Net averages the folds' logits; here: probabilities, as of every ensemble in somite, so that calibration compares.
        return answer(models, record, sampling.members, self.fusion, sampling.seed, self.batch, keep)

    def probabilities(self, result: Result) -> tuple[np.ndarray, np.ndarray]:
        return result.probability, result.record.truth

    def risks(self, result: Result) -> dict[str, np.ndarray] | None:
        return risks(result.probability[0].clip(0, 1), result.record.truth > 0) if len(result.probability) == 1 else None

    def goodness(self, result: Result) -> float:
        return scores.dice(result)

    def sureness(self, result: Result) -> dict[str, float]:
        return scores.sureness(result)

    def likeness(self, result: Result, other: Result) -> float:
        return scores.likeness(result, other)

    def score(self, result: Result) -> Scored:
        """All metrics of one case, for each foreground label."""
        scored = Scored([], {"reliability": [], "curves": [], "votes": []})
        for label in scores.labels_of(result):
            one = scores.Label(result, label, 0 if len(result.probability) == 1 else label)
            scored.rows.append(scores.row(one, self.tolerance, self.boundary, self.bins))
            scored.tables["reliability"] += scores.reliability(one, self.boundary, self.bins)
            scored.tables["curves"] += scores.by_members(one, self.fusion)
            if result.count > 1:
                scored.tables["votes"] += scores.vote_rows(one)
        if isinstance(self.fusion, Controlled):
            scored.tables["risks"] = list(scores.risk_rows(result, self.fusion.threshold))
        return scored

    def variations(self, method: Method) -> Sequence[Variation]:
        return [Variation("steps", steps, {"steps": steps, "members": 1}) for steps in self.steps]

    def point(self, result: Result, variation: Variation) -> Row:
        """Dice, of all foreground labels on average."""
        record = result.record
        key = {"case": record.case.id, "group": record.group, "label": "mean"}
        return {**key, "axis": variation.axis, "at": variation.at, "dice": scores.dice(result)}

    def stratified(self, rows: list[Row]) -> list[Row]:
        return whole.with_terciles(rows)

    def conclude(self, rows: Sequence[Row], tables: dict[str, list[Row]]) -> dict[str, Any]:
        controlled = {"control": whole.control(self.fusion, tables["risks"])} if isinstance(self.fusion, Controlled) else {}
        return {**whole.conclude(rows, tables), **controlled}

    def admit(self, case: Case, kinds: Collection[str]) -> None:
        outputs.admit(case, kinds)

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        return outputs.names(case, kinds, members, codec.maps, data.values)

    def write(self, result: Result, out: Path, kinds: Collection[str]) -> list[Path]:
        return outputs.write(result, out, kinds)

    def view(self, found: Found) -> View:
        from .view import view  # with matplotlib, which training does not need

        return view(found)

    def sections(self, found: Found) -> list[Section]:
        from .view import sections

        return sections(found)

    def beside(self, found: Mapping[str, Found]) -> list[Section]:
        from .view import beside

        return beside(found)

    def pictures(self, results: Sequence[Result], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        from .pictures import pictures

        return pictures(results, rows)


def middle(array: np.ndarray) -> np.ndarray:
    """A plane to look at: the array itself, or the middle one of a volume."""
    return array if array.ndim == 2 else array[..., array.shape[-1] // 2]
