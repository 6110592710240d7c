"""A data set as a recipe names it: where the files are, how they become tensors, what training draws from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import InputError
from ..files import read_json
from ..types import Sample
from .augment import Augmentation
from .listing import check_splits
from .preprocess import Preprocess
from .raters import folder_of, raters_of
from .record import Case, Record, read
from .sources import NUCLEI, find_cases, find_splits
from .split import assign, folds
from .stream import Stream, TrainingSet, together


class Data:
    """Images with masks.

    root: a folder of images and masks, a CSV of pairs or an nnU-Net raw folder; "nuclei" is the bundled example.
    labels: the values of the classes in mask files, background first; None for binary masks.
    mask_threshold: mask values from here on are foreground (for masks stored as JPEG).
    crop: the side of the random square (cube) that a training example is, or one number an axis; None takes images whole.
    foreground_rate: the share of training examples whose crop (and slice) is made to hold some foreground.
    rates, split_seed: how cases are split where the data bring no lists; by patient, by hash, so that adding cases moves none.
    fold, folds: cross-validation. Training and validation cases are divided anew into `folds` parts by patient, and part `fold`
    is the validation; the test split stays. An nnU-Net raw folder's splits_final.json is taken as it is.
    cache_gb: decoded cases are kept in memory up to this size.
    raters: each training example has the mask of one rater, drawn anew each time, from the files in raters/ (see `raters.py`);
    validation and evaluation compare with masks/ as ever. For binary masks.
    """

    def __init__(
        self,
        root: str | None = None,
        preprocess: Preprocess | None = None,
        augment: Augmentation | None = None,
        crop: int | list[int] | None = None,
        labels: list[int] | None = None,
        mask_threshold: int | None = None,
        foreground_rate: float = 0.0,
        rates: dict[str, float] | None = None,
        split_seed: int = 0,
        cache_gb: float = 2.0,
        fold: int | None = None,
        folds: int = 5,
        raters: bool = False,
    ) -> None:
        if raters and labels is not None:
            raise InputError("--data.raters is for binary masks, and --data.labels names classes: leave one of them out")
        if fold is not None and not 0 <= fold < folds:
            raise InputError(f"--data.fold {fold}: there are {folds} folds, 0 to {folds - 1} (--data.folds)")
        self.root, self.preprocess, self.augment = root, preprocess or Preprocess(), augment
        self.crop, self.labels, self.mask_threshold = crop, labels, mask_threshold
        self.foreground_rate, self.split_seed = foreground_rate, split_seed
        self.rates = rates or {"train": 0.7, "val": 0.1, "test": 0.2}
        self.room, self.fold, self.folds, self.raters = cache_gb * 2**30, fold, folds, raters
        self._cases: dict[str, list[Case]] = {}
        self._cache: dict[Case, tuple[Tensor, Tensor]] = {}
        self._rated: dict[Case, Tensor] = {}

    @property
    def path(self) -> Path:
        if self.root is None:
            raise InputError(
                "this recipe does not say where the data are; add --data.root FOLDER (images/ and masks/ inside), a CSV of pairs or an nnU-Net raw folder"
            )
        return NUCLEI if self.root == "nuclei" else Path(self.root)

    def move(self, root: str) -> None:
        """Use another data set with the same preprocessing, and its own splits: a fold is of the data that it was made for."""
        self.root, self.fold, self._cases = root, None, {}

    def cases(self, split: str) -> list[Case]:
        """The labelled cases of a split: the data's own lists, or by hash where they bring none; "all" is every labelled case."""
        if split == "all":
            return [case for case in find_cases(self.path, None) if case.mask is not None]
        if not self._cases:
            self._cases = self.find() if self.fold is None else self.divided(self.find(), self.fold)
        if not self._cases.get(split):
            raise InputError(
                f"{self.path} has no cases in the split {split!r}; it has {', '.join(f'{k} ({len(v)})' for k, v in self._cases.items())}"
            )
        return self._cases[split]

    def find(self) -> dict[str, list[Case]]:
        labelled = {name: [c for c in cases if c.mask is not None] for name, cases in find_splits(self.path).items()}
        if not labelled:
            return assign([c for c in find_cases(self.path, None) if c.mask is not None], self.rates, self.split_seed)
        if "val" not in labelled and labelled.get("train"):
            rate = self.rates.get("val", 0.1)
            labelled |= assign(labelled["train"], {"train": 1 - rate, "val": rate}, self.split_seed)
        return labelled

    def divided(self, found: dict[str, list[Case]], fold: int) -> dict[str, list[Case]]:
        """Training and validation cases as this fold of the cross-validation has them."""
        pool = sorted([*found.get("train", []), *found.get("val", [])], key=lambda case: case.id)
        path = self.path / "splits_final.json"
        if not path.is_file():
            return {**found, **folds(pool, self.folds, self.split_seed)[fold]}
        listed = read_json(path)
        parts = [part for part in listed if isinstance(part, dict) and {"train", "val"} <= set(part)] if isinstance(listed, list) else []
        if len(parts) != self.folds:
            raise InputError(f"{path} does not list {self.folds} folds of train and val; set --data.folds to as many as it has, or mend it")
        known = {case.id: case for case in find_cases(self.path, None)}
        chosen = {name: [str(i) for i in parts[fold][name]] for name in ("train", "val")}
        check_splits(path, {**chosen, "test": [case.id for case in found.get("test", [])]}, known)
        return {**found, **{name: [known[i] for i in sorted(ids)] for name, ids in chosen.items()}}

    def read(self, case: Case) -> Record:
        return read(case, self.labels, self.mask_threshold)

    def sample(self, record: Record) -> Sample:
        """{"image": (n, c, *s), "mask": (n, 1, *s)} of a labelled case, as the network sees it."""
        return {"image": self.preprocess.image(record), "mask": self.preprocess.mask(record)}

    def stream(self, batch: int, total: int, seed: int, start: int = 0, rank: int = 0, world: int = 1, workers: int = 0) -> DataLoader:
        """The training batches `start` .. `total` - 1 of process `rank` of `world`."""
        cases = self.cases("train")
        stream = Stream(len(cases), batch, total, seed, start, rank, world)
        drawn = TrainingSet(self.draw)
        return DataLoader(drawn, batch_sampler=stream, collate_fn=together, num_workers=workers, persistent_workers=workers > 0)

    def draw(self, index: int, seed: int) -> Sample:
        """Training example of case `index`: {"image": (c, *s), "mask": (1, *s)}; slice, crop and augmentation follow from `seed`."""
        case = self.cases("train")[index]
        images, masks = self.loaded(case)
        random = np.random.default_rng(seed)
        if self.raters:
            rated = self.rated(case)
            masks = rated[:, [int(random.integers(rated.shape[1]))]]
        centre = None
        if random.random() < self.foreground_rate and bool(masks.any()):
            inside = masks.nonzero()
            centre = inside[random.integers(len(inside))].tolist()  # (n, 0, *s)
        row = centre[0] if centre else int(random.integers(len(images)))
        image, mask = images[row], masks[row]
        if self.crop is not None:
            image, mask = self.cropped(image, mask, centre[2:] if centre else None, random)
        if self.augment is not None:
            image, mask = self.augment(image, mask, int(random.integers(2**32)))
        return {"image": image.contiguous(), "mask": mask.contiguous()}

    def cropped(self, image: Tensor, mask: Tensor, centre: list[int] | None, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A random window, around `centre` where one is given; smaller images are mirrored to the window's size."""
        space = image.shape[1:]
        size = [self.crop] * len(space) if isinstance(self.crop, int) else list(self.crop or ())
        if len(size) != len(space):
            raise InputError(f"--data.crop {self.crop} has {len(size)} numbers for {len(space)} axes; give one an axis, or one for all")
        for axis, (have, want) in enumerate(zip(space, size, strict=True)):
            if have < want:
                image, mask = mirrored(image, axis + 1, want), mirrored(mask, axis + 1, want)
                start = 0
            elif centre is not None:
                start = int(np.clip(centre[axis] - random.integers(want), 0, have - want))
            else:
                start = int(random.integers(have - want + 1))
            image, mask = image.narrow(axis + 1, start, want), mask.narrow(axis + 1, start, want)
        return image, mask

    def loaded(self, case: Case) -> tuple[Tensor, Tensor]:
        if case in self._cache:
            return self._cache[case]
        sample = self.sample(self.read(case))
        pair = sample["image"], sample["mask"].to(torch.uint8)
        if self.fits(*pair):
            self._cache[case] = pair
        return pair

    def rated(self, case: Case) -> Tensor:
        """(n, r, *s): what each of r raters marked, as the network sees it."""
        if case in self._rated:
            return self._rated[case]
        record, found = self.read(case), raters_of(case, folder_of(self.path))
        masks = torch.cat([self.preprocess.mask(replace(record, labels=mask.astype(np.uint8))) for mask in found], 1).to(torch.uint8)
        if self.fits(masks):
            self._rated[case] = masks
        return masks

    def fits(self, *parts: Tensor) -> bool:
        """Whether there is room to keep these, which is then taken."""
        size = sum(part.element_size() * part.nelement() for part in parts)
        if size > self.room:
            return False
        self.room -= size
        return True


def mirrored(x: Tensor, axis: int, want: int) -> Tensor:
    """`x` reflected at its end along an axis until it is `want` long."""
    have = x.shape[axis]
    period = torch.cat([torch.arange(have), torch.arange(have - 2, 0, -1)]) if have > 1 else torch.zeros(1, dtype=torch.long)
    return x.index_select(axis, period[torch.arange(want) % len(period)])
