"""Where in the body each voxel lies: coordinates that are learned from two views of scans without labels (diffusion/views.py)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.dataset import Data
from ..data.nifti import write_volume
from ..data.record import Record
from ..diffusion.codec import Codec
from ..diffusion.methods import Method
from ..diffusion.views import Positions, TwoViews
from ..errors import InputError
from ..metrics.positions import Fit, fitted
from ..nn.pyramid import at_voxels
from ..predict.ensemble import Model
from ..sampling import Sampling
from ..types import Cond, Sample, Shape
from .pretraining import moved
from .pretraining_figures import pixels
from .task import PLACES, Glimpse, Row, Scored, Task
from .view import HIGHER, LOWER, Found, Key, Meaning, Number, Panel, Pictures, View

VIEWS = ("image", "other", "voxels", "other_voxels")
SEEN = ("seen", "other_seen")
POINTS = 20_000  # voxels of a case that are scored, equally spaced among all
MEANINGS = {
    "error": Meaning(
        "Error (mm)",
        LOWER,
        "mean distance between where voxels are said to lie and where they lie, after the best affine map of each case",
        share=False,
    ),
    "r2": Meaning("R squared", HIGHER, "share of the voxels' variance in space that this map explains"),
    "superior": Meaning(
        "Superior", HIGHER, "rank correlation (Spearman) of the third coordinate with the way to the head, without any map"
    ),
}


@dataclass
class Placed:
    """coordinates (3, *s) at the network's size, native (3, *native) on the file's voxels, and how they fit the places."""

    record: Record
    image: Tensor  # (c, *s)
    coordinates: Tensor
    native: np.ndarray
    fit: Fit


class Views(Task):
    """What is learned from two views of a scan: the target is where voxels lie, mm (b, 3, n), the condition the views and the voxels."""

    def target(self, sample: Sample) -> Tensor:
        return sample["mm"]

    def cond(self, sample: Sample) -> Cond:
        return {name: sample[name] for name in (*VIEWS, *SEEN, *PLACES) if name in sample}

    def shape(self, sample: Sample) -> Shape:
        image = sample["image"]
        return (len(image), 3, *image.shape[2:])

    def check(self, data: Data, codec: Codec, samples: Iterable[Sample]) -> None:
        if data.views is None:
            raise InputError("this task learns from two views of each scan; set --data.views.size to the size of a view")
        super().check(data, codec, samples)


class BodyParts(Views):
    """A network's value are the body coordinates of each voxel. What is predicted is a volume of three channels."""

    score_name = "minus error in mm"
    saves = by_default = ("coordinates",)

    @torch.no_grad()
    def glimpse(self, method: Method, sample: Sample, case: str) -> Glimpse:
        """Of a pair of views."""
        assert isinstance(method, Positions)
        given = moved(sample, method)
        found = method.coordinates({"image": given["image"]}, given["image"])[0].cpu()
        fit = fitted(at_voxels([found[None]], sample["voxels"])[0], sample["mm"][0].T)
        return Glimpse(case, -fit.error, {"image": middle(sample["image"][0]), "coordinates": middle(colours(found))})

    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> Placed:
        model = models[0]
        if not isinstance(model.method, Positions):
            raise InputError(f"{type(model.method).__name__} tells no places; body coordinates are learned by the method Positions")
        image = model.cond["image"]
        found = model.method.sample({"image": image.to(next(model.method.parameters()).device)}, model.shape)[0].cpu()
        places = (model.cond["body"][0, 0] > 0 if "body" in model.cond else torch.ones(found.shape[1:])).nonzero()
        places = places[torch.linspace(0, len(places) - 1, min(POINTS, len(places))).round().long()]
        spacing = model.preprocess.spacing(record)
        if spacing is None:
            raise InputError(f"{record.case.id} does not say how far apart its voxels are; give a volume that does (NIfTI, NRRD, DICOM)")
        mm = places * torch.tensor(spacing)
        native = np.concatenate([model.preprocess.restore(found[None, i : i + 1], record) for i in range(3)])
        native[:, model.preprocess.restore(torch.ones_like(found[None, :1]), record)[0] == 0] = np.nan  # what was not looked at
        return Placed(record, image[0], found, native, fitted(at_voxels([found[None]], places[None])[0], mm))

    def score(self, answer: Placed) -> Scored:
        fit = answer.fit
        row: Row = {"case": answer.record.case.id, "group": answer.record.group}
        return Scored([{**row, "error": fit.error, "r2": fit.r2, "superior": fit.superior}])

    def files(self, case: str, kinds: Collection[str], data: Data, codec: Codec, members: int) -> list[str]:
        return [f"{case}_coordinates"]

    def write(self, answer: Placed, out: Path, kinds: Collection[str]) -> list[Path]:
        record = answer.record
        if record.geometry is None:
            raise InputError(f"{record.case.id} is a flat image, and body coordinates are of volumes; give a volume")
        path = out / f"{record.case.id}_coordinates.nii.gz"
        write_volume(path, answer.native, record.geometry)
        return [path]

    def view(self, found: Found) -> View:
        numbers = [Number(MEANINGS[name], one, large=True) for name, one in found.summary["metrics"].items()]
        note = "Within each case alone: that the same place of two bodies gets the same coordinates is not measured here."
        return View("r2", MEANINGS["r2"].name, numbers, notes=[("What this says.", note)])

    def pictures(self, answers: Sequence[Placed], rows: Sequence[Sequence[Row]], data: Data) -> Pictures:
        panels = [
            [
                Panel(name, Image.fromarray(pixels(middle(part)).transpose(1, 0, 2)[::-1]), photograph=True)
                for name, part in (("image", one.image), ("coordinates", colours(one.coordinates)))
            ]
            for one in answers
        ]
        facts = [[f"error {float(row['error']):.1f} mm" for row in some] for some in rows]
        keys = [Key("#ff0000", "right"), Key("#00ff00", "anterior"), Key("#0000ff", "superior")]
        return Pictures(panels, facts, keys, "The middle coronal slice; the more of a colour, the further that way.")


def colours(coordinates: Tensor) -> Tensor:
    """Each of three coordinates from its lowest to its highest value in the case as a share of red, green and blue."""
    low, high = coordinates.amin((1, 2, 3), keepdim=True), coordinates.amax((1, 2, 3), keepdim=True)
    return (coordinates - low) / (high - low).clamp(min=1e-6)


def middle(part: Tensor) -> Tensor:
    """(c, x, y, z) -> (c, x, z): the middle coronal slice."""
    return part[:, :, part.shape[2] // 2]


class Contrasted(Views):
    """Voxels are told apart (vox2vec): the score is how often a voxel's nearest vector, of all that the other view shows, is its own."""

    score_name = "share of voxels found again"
    saves = by_default = ()

    @torch.no_grad()
    def glimpse(self, method: Method, sample: Sample, case: str) -> Glimpse:
        assert isinstance(method, TwoViews)
        given = moved(sample, method)
        first, second = (
            F.normalize(method.of_voxels({"image": given[image]}, given[voxels])[0].float(), dim=1)
            for image, voxels in (("image", "voxels"), ("other", "other_voxels"))
        )
        found = (first @ second.T).argmax(1).cpu() == torch.arange(len(first))
        panels = {name: middle(sample[key][0]) for name, key in (("a view", "image"), ("another", "other"))}
        return Glimpse(case, float(found.float().mean()), panels)

    def answer(self, models: Sequence[Model], record: Record, sampling: Sampling, keep: bool = False) -> NoReturn:
        raise InputError(
            "what is learned by telling voxels apart are features; train a probe on them: somite train probe/small --backbone RUN"
        )

    def score(self, answer: NoReturn) -> Scored:
        raise TypeError("a run of Contrasted has no answers to score")

    def view(self, found: Found) -> View:
        raise TypeError("a run of Contrasted has no evaluation to show")
