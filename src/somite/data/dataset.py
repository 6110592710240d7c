"""A data set as a recipe names it: where the files are, how they become tensors, what training draws from them."""

from collections.abc import Collection
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import InputError
from ..rng import derive
from ..types import Sample
from . import labelled
from .augment import Augmentation
from .body import Body
from .cache import DiskCache, default_folder
from .coordinates import Coordinates
from .digest import stamp, stamped
from .extra import Extra
from .identity import identity
from .listing import Hear, Source, stop
from .preprocess import Preprocess
from .published import resplit
from .raters import folder_of, raters_of
from .record import Case, Record, read
from .refusals import refuse
from .soft import Soft
from .sources import NUCLEI, find
from .split import assign, divided
from .stream import Stream, TrainingSet, together
from .views import Views
from .windows import chosen, cropped

FORMAT = 1  # of what is kept on disk: another one where the same files and settings give something else than before
FOREGROUND = "foreground"  # beside a mask on disk: the flat indices of its foreground, of which one is read where it is looked for


class Data:
    """Images, with masks or labels where the task needs them.

    root: a folder of images and masks, a CSV of pairs or an nnU-Net raw folder; "nuclei" is the bundled example.
    labels: the values of the classes in mask files, background first; None for binary masks.
    mask_threshold: mask values from here on are foreground (for masks stored as JPEG).
    classes: of labelled images the columns of labels.csv that hold them, by default all that can. Training writes the names of the
    classes down here, in the order of the labels.
    foreground: these mask values are foreground, all others are not: one organ, or a union of several, out of a map of labels.
    crop: the side of the random square (cube) that a training example is, or one number an axis; None takes images whole.
    foreground_rate: the share of training examples whose crop (and slice) is made to hold some foreground.
    splits: a JSON file of lists of ids in place of the data's own, or one that comes with somite: cvc-clinicdb-by-sequence,
    cvc-clinicdb-by-frame (`published.py`).
    rates, split_seed: how cases are split where the data bring no lists; by patient, by hash, so that adding cases moves none.
    fold, folds: cross-validation. Training and validation cases are divided anew into `folds` parts by patient, and part `fold`
    is the validation; the test split stays. An nnU-Net raw folder's splits_final.json is taken as it is.
    cache_gb: preprocessed cases are kept in memory up to this size.
    cache_disk_gb, cache_folder: those that have no room there are kept on disk (`cache.py`), of which a patch reads what it shows and no
    more; up to this size in this folder, for all data sets and runs together, the oldest removed first. By default nothing is;
    the folder is SOMITE_CACHE, or somite/cases in the user's cache. For volumes, 50 to 500 say.
    extra: a further folder whose images are for training alone, such as generated ones (`extra.py`).
    raters: each training example has the mask of one rater, drawn anew each time, from the files in raters/ (see `raters.py`);
    validation and evaluation compare with masks/ as ever. For binary masks.
    body: samples have an entry "body" as well, of the whole volume (`body.py`); None where everything is body, as in MR.
    coordinates: samples have an entry "coordinates" as well, made once of the whole volume before anything is cut or augmented.
    soft: training examples have an entry "soft" as well, what a teacher says of them (`soft.py`), and "known", whether they have a mask;
    where they have none its place is taken by what the teacher decides, which terms other than the teacher's do not look at.
    views: training examples are two views of one scan (`views.py`); what is answered stays whole, with an entry "spacing" (1, 3) in mm.
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
        foreground: list[int] | None = None,
        splits: str | None = None,
        classes: list[str] | None = None,
        extra: Extra | None = None,
        body: Body | None = None,
        coordinates: Coordinates | None = None,
        views: Views | None = None,
        cache_disk_gb: float = 0.0,
        cache_folder: str | None = None,
        soft: Soft | None = None,
    ) -> None:
        if raters and labels is not None:
            raise InputError("--data.raters is for binary masks, and --data.labels names classes: leave one of them out")
        if crop is not None and min([crop] if isinstance(crop, int) else crop, default=0) < 1:
            raise InputError(f"--data.crop {crop}: a window has at least 1 px an axis; give its side, or null to take images whole")
        if fold is not None and not 0 <= fold < folds:
            raise InputError(f"--data.fold {fold}: there are {folds} folds, 0 to {folds - 1} (--data.folds)")
        self.root, self.preprocess, self.augment = root, preprocess or Preprocess(), augment
        self.crop, self.labels, self.mask_threshold = crop, labels, mask_threshold
        self.foreground_rate, self.split_seed = foreground_rate, split_seed
        self.rates = rates or {"train": 0.7, "val": 0.1, "test": 0.2}
        self.cache_gb, self.fold, self.folds, self.raters = cache_gb, fold, folds, raters
        self.foreground, self.splits, self.classes, self.extra = foreground, splits, classes, extra
        if cache_disk_gb < 0 or (cache_folder and not cache_disk_gb):
            told = f"--data.cache_folder {cache_folder}" if cache_folder else f"--data.cache_disk_gb {cache_disk_gb:g}"
            raise InputError(f"{told}: say with --data.cache_disk_gb how many GB of preprocessed cases may be kept on disk, 0 for none")
        self.body, self.coordinates, self.views, self.soft = body, coordinates, views, soft
        self.disk = (
            DiskCache(Path(cache_folder) if cache_folder else default_folder(), cache_disk_gb * 2**30) if cache_disk_gb > 0 else None
        )
        self.needs = frozenset({"image", "mask"})
        self._forget()
        refuse(self)

    def _forget(self) -> None:
        self._cases: dict[str, list[Case]] = {}
        self._cache: dict[Case, Sample] = {}
        self._rated: dict[Case, Tensor] = {}
        self._keys: dict[Case, str] = {}
        self._taught: dict[Case, None] = {}
        self._how = ""
        self.room = self.cache_gb * 2**30
        self.__dict__.pop("source", None)

    def needing(self, needs: Collection[str]) -> "Data":
        """The same data for a task whose cases must have these: "image", "mask", "labels"."""
        if self.soft is not None and "mask" not in needs:
            raise InputError("--data.soft is what a teacher says of masks, which this recipe's task does not learn: leave it out")
        return self._changed(needs=frozenset(needs))

    def moved(self, root: str) -> "Data":
        """Another data set with the same preprocessing, and its own splits: a fold is of the data that it was made for."""
        return self._changed(root=root, fold=None, splits=None, extra=None, soft=None)

    def over(self, other: "Data") -> "Data":
        """The cases and splits of other data, prepared as these are."""
        named = ("root", "rates", "split_seed", "fold", "folds", "splits")
        return self._changed(**{name: getattr(other, name) for name in named}, extra=None, soft=None)

    def _changed(self, **attributes: object) -> "Data":
        other = copy(self)
        vars(other).update(attributes)
        other._forget()
        return other

    @property
    def path(self) -> Path:
        if self.root is None:
            raise InputError(
                "this recipe does not say where the data are; add --data.root FOLDER (images/ and masks/ inside), a CSV of pairs or an nnU-Net "
                "raw folder; a run that came without its data is evaluated on others by --data, for all else write data.root into a copy's recipe.yaml"
            )
        return NUCLEI if self.root == "nuclei" else Path(self.root)

    @property
    def values(self) -> tuple[int, ...] | None:
        """The classes' values in mask files; None for binary masks."""
        return None if self.labels is None else tuple(self.labels)

    @cached_property
    def source(self) -> Source:
        """All that the folder or table holds, looked up once."""
        return self.listed(stop)

    def listed(self, hear: Hear) -> Source:
        """All that the folder or table holds. hear: is told what is wrong with some of it."""
        masks = "mask" in self.needs
        found = labelled.find(self.path, masks, self.classes, hear) if "labels" in self.needs else find(self.path, masks, hear)
        return found if self.splits is None else resplit(found, self.splits, hear)

    def usable(self, hear: Hear) -> "Data":
        """The same data without what is wrong with them, of which `hear` is told."""
        other = self._changed()
        other.source = self.listed(hear)
        return other

    def cases(self, split: str) -> list[Case]:
        """The cases of a split, those for training with the images that only a teacher spoke of; "all" is every labelled case."""
        if split == "train" and self.soft is not None:
            return list(self.taught)
        return self.own(split)

    def own(self, split: str) -> list[Case]:
        """The labelled cases of a split: the data's own lists, or by hash where they bring none."""
        if split == "all":
            return self.enough(self.source.all)
        if not self._cases:
            self._cases = self.joined(self.find() if self.fold is None else self.folded(self.find(), self.fold))
        if not self._cases.get(split):
            raise InputError(
                f"{self.path} has no cases in the split {split!r}; it has {', '.join(f'{k} ({len(v)})' for k, v in self._cases.items())}"
            )
        return self._cases[split]

    @property
    def taught(self) -> dict[Case, None]:
        """The training cases that a teacher spoke of, those without masks last."""
        if not self._taught and self.soft is not None:
            self._taught = dict.fromkeys([*self.own("train"), *self.soft.cases()])
        return self._taught

    def enough(self, cases: Collection[Case]) -> list[Case]:
        """Those that have what the task needs; a data set's unlabelled cases are for prediction."""
        has = {"mask": lambda case: case.mask is not None, "labels": lambda case: case.labels is not None}
        return [case for case in cases if all(there(case) for name, there in has.items() if name in self.needs)]

    def find(self) -> dict[str, list[Case]]:
        """The splits, before any cross-validation."""
        splits = {name: self.enough(self.source.split(name)) for name in self.source.splits}
        if not splits:
            return assign(self.enough(self.source.all), self.rates, self.split_seed)
        if "val" not in splits and splits.get("train"):
            rate = self.rates.get("val", 0.1)
            splits |= assign(splits["train"], {"train": 1 - rate, "val": rate}, self.split_seed)
        return splits

    def folded(self, found: dict[str, list[Case]], fold: int) -> dict[str, list[Case]]:
        return divided(found, fold, self.folds, self.split_seed, self.path / "splits_final.json", self.source.cases)

    def joined(self, found: dict[str, list[Case]]) -> dict[str, list[Case]]:
        """With the extra cases in training."""
        if self.extra is None:
            return found
        own = found.get("train", [])
        more = self.enough(self.extra.cases(self.needs, self.source.classes, len(own)))
        return {**found, "train": more if self.extra.alone else own + more}

    def read(self, case: Case) -> Record:
        names = self.source.classes if case.labels is not None else tuple(self.classes or ())
        return replace(read(case, self.labels, self.mask_threshold, self.foreground), classes=names)

    def sample(self, record: Record, entries: Collection[str]) -> Sample:
        """{"image": (n, c, *s), "mask": (n, 1, *s), "labels": (n, classes)}: these entries of a case, as the network sees them.

        Those that these data have beside come too: "body" (n, 1, *s), "coordinates" (1, 3, *s), "spacing" (1, 3) in mm.
        """
        made = {"image": self.preprocess.image, "mask": self.preprocess.mask, "labels": self.preprocess.labels}
        sample = {name: made[name](record) for name in sorted(entries)}
        if self.body is not None:
            sample["body"] = self.preprocess.nearest(self.body(record), record).to(torch.uint8)
        if self.coordinates is not None:
            image = sample["image"] if "image" in sample else self.preprocess.image(record)
            body = sample["body"][0] if "body" in sample else None
            sample["coordinates"] = self.coordinates(image[0], record, self.preprocess.spacing(record), body)[None].float()
        spacing = None if self.views is None else self.preprocess.spacing(record)
        if spacing is not None:
            sample["spacing"] = torch.tensor([spacing])
        return sample

    def stream(self, batch: int, total: int, seed: int, start: int = 0, rank: int = 0, world: int = 1, workers: int = 0) -> DataLoader:
        """The training batches `start` .. `total` - 1 of process `rank` of `world`."""
        cases = self.cases("train")
        stream = Stream(len(cases), batch, total, seed, start, rank, world)
        drawn = TrainingSet(self.draw)
        return DataLoader(drawn, batch_sampler=stream, collate_fn=together, num_workers=workers, persistent_workers=workers > 0)

    def draw(self, index: int, seed: int) -> Sample:
        """Training example of case `index`: {"image": (c, *s), "mask": (1, *s), "labels": (classes,)}; slice, crop and augmentation follow from `seed`."""
        case = self.cases("train")[index]
        rows = self.kept(case)
        foreground = rows.pop(FOREGROUND, None)
        random = np.random.default_rng(seed)
        if self.views is not None:
            return self.two_views(rows, case, random)
        if self.raters:
            rated = self.rated(case)
            rows, foreground = {**rows, "mask": rated[:, [int(random.integers(rated.shape[1]))]]}, None
        centre = None
        if random.random() < self.foreground_rate and "mask" in rows:
            centre = chosen(rows["mask"], foreground, random)
        row = centre[0] if centre else int(random.integers(len(rows["image"])))
        sample = {name: part[row] for name, part in rows.items()}
        if self.crop is not None:
            sample = cropped(sample, self.crop, centre[2:] if centre else None, random)
        if self.augment is not None:
            sample = self.augment(sample, int(random.integers(2**32)))
        return {name: part.contiguous() for name, part in sample.items()}  # of a file's memory no more than the window is read

    def two_views(self, rows: Sample, case: Case, random: np.random.Generator) -> Sample:
        assert self.views is not None
        if "spacing" not in rows:
            raise InputError(f"{case.id} does not say how far apart its voxels are, which --data.views must know; give NIfTI volumes")
        return self.views(rows["image"][0], rows["body"][0] if "body" in rows else None, rows["spacing"][0].tolist(), random)

    def watched(self, case: Case) -> Sample:
        """What training looks at of a validation case: all of it, or, of data with views, two of them, the same each time, as a batch of one."""
        rows = self.loaded(case)
        if self.views is None:
            return rows
        views = self.two_views(rows, case, np.random.default_rng(derive("watched", case.id)))
        return {name: part[None] for name, part in views.items()}

    def loaded(self, case: Case) -> Sample:
        """All that the task needs of a case, from memory or disk where it is kept."""
        return {name: part for name, part in self.kept(case).items() if name != FOREGROUND}

    def kept(self, case: Case) -> Sample:
        """A case's sample, from a file as it is read from. With it may come where its foreground is."""
        if case in self._cache:
            return dict(self._cache[case])
        found = None if self.disk is None else self.disk.get(self.key(case))
        if found is not None:
            return found
        sample = self.made(case)
        if "mask" in sample:
            sample["mask"] = sample["mask"].to(torch.uint8)
        if self.fits(*sample.values()):
            self._cache[case] = sample
        elif self.disk is not None:
            extra = {FOREGROUND: sample["mask"].flatten().nonzero()[:, 0]} if "mask" in sample else {}
            self.disk.put(self.key(case), {**sample, **extra})
        return dict(sample)

    def made(self, case: Case) -> Sample:
        """All that is known of a case, from its files."""
        record = self.read(case)
        if not self.learned(case):
            return self.sample(record, self.needs)
        assert self.soft is not None
        soft = self.preprocess.soft(self.soft.maps(record), record)
        sample = self.sample(record, self.needs if case.mask else self.needs - {"mask"})
        if case.mask is None:
            sample["mask"] = (soft >= 0.5).long() if soft.shape[1] == 1 else soft.argmax(1, keepdim=True)
        return {**sample, "soft": soft, "known": torch.full((len(soft), 1), float(case.mask is not None))}

    def learned(self, case: Case) -> bool:
        """Whether a teacher spoke of it."""
        return self.soft is not None and case in self.taught

    def key(self, case: Case) -> str:
        """What tells this case's entry on disk from all others: its files, and all that is done with them."""
        if case not in self._keys:
            if not self._how:
                values = (self.labels, self.mask_threshold, self.foreground, self.classes, self.needs, self.views is not None)
                where = None if self.coordinates is None else (type(self.coordinates), self.coordinates.settings)
                self._how = identity(FORMAT, torch.__version__, values, self.preprocess, self.body, where)
            said = [stamped(path) for path in self.soft.files(case.id, self.values)] if self.soft and self.learned(case) else []
            self._keys[case] = identity(self._how, stamp(case), *said)[:40]
        return self._keys[case]

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
