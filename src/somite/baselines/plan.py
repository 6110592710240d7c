"""nnU-Net's plan: from the fingerprint of a data set to patch, network, batch and normalisation, as a recipe to train.

The rules are those of nnU-Net v2's default planner (Isensee et al. 2021, supplementary note 2), in our own words:
- target spacing: the median; along an axis over 3 times coarser than the others and over 3 times shorter, the 10th percentile;
- patch: the median image, at most what memory allows, made a multiple of what the network divides it by;
- levels: halve every axis whose edge is still 8 or longer and whose spacing is within a factor of 2 of the finest; an axis
  that is coarser waits, and has kernels of 1 until then;
- batch: what memory allows, at most 5 % of the data set's voxels, at least 2.
nnU-Net measures memory by its network's feature maps. Here it is counted in voxels of a batch at full resolution, with
nnU-Net's own reference for a GPU of 8 GB: 12 x 512^2 in 2D and 2 x 128^3 in 3D.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.dataset import Data
from ..data.record import Record
from ..errors import InputError
from ..files import read_json

BUDGET = {2: 12 * 512**2, 3: 2 * 128**3}  # voxels of a batch
EXAMPLES = {2: 12, 3: 2}  # a patch may have this part of the budget
WIDEST = {2: 512, 3: 320}
STEPS = 250_000  # nnU-Net's 1000 epochs
SMALLEST_EDGE = 4  # at the bottom of the network
SAMPLED = 10_000_000  # foreground voxels that intensities are measured on, of all cases together


class NoRoomError(InputError):
    """No patch is small enough for the budget."""


@dataclass(frozen=True)
class Intensity:
    """One channel's values over the foreground voxels of all cases."""

    mean: float
    std: float
    low: float  # percentile 0.5
    high: float  # percentile 99.5


@dataclass(frozen=True)
class Fingerprint:
    """What planning needs to know of a data set: of its training and validation cases, never of its test cases."""

    root: str
    shapes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]  # mm; 1 for images that have none
    channels: tuple[str, ...]  # names, from dataset.json where there is one
    intensities: tuple[Intensity, ...]  # one a channel
    classes: int  # background included
    labels: tuple[int, ...] | None
    mask_threshold: int | None

    @property
    def dims(self) -> int:
        return len(self.shapes[0])


@dataclass(frozen=True)
class Topology:
    """How a network halves a patch, level by level."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    patch: tuple[int, ...]  # extended to what the strides divide

    @property
    def divisor(self) -> tuple[int, ...]:
        return tuple(prod(along) for along in zip(*self.strides, strict=True))


@dataclass(frozen=True)
class Plan:
    dims: int
    axis: int | None  # which axis of a volume a 2D plan cuts slices along
    spacing: tuple[float, ...]  # target, mm
    shape: tuple[int, ...]  # the median case at the target spacing
    patch: tuple[int, ...]
    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    batch: int
    normalise: dict[str, Any]  # class path and arguments

    @property
    def levels(self) -> int:
        return len(self.features)

    @property
    def isotropic(self) -> bool:
        """Whether strides and kernels are those that the network has by itself."""
        return all(set(k) == {3} for k in self.kernels) and all(set(s) == {1 if i == 0 else 2} for i, s in enumerate(self.strides))

    def network(self, image_channels: int, mask_channels: int) -> dict[str, Any]:
        """The arguments of `networks.baselines.DynUNet`."""
        given = {"image_channels": image_channels, "mask_channels": mask_channels, "channels": list(self.features), "dims": self.dims}
        if self.levels > 2:
            given |= {"deep_heads": self.levels - 2, "idle_heads": 1}
        else:
            given |= {"deep_heads": 0}
        if not self.isotropic:
            given |= {"strides": [list(s) for s in self.strides], "kernels": [list(k) for k in self.kernels]}
        return given


def supervision(levels: int) -> float:
    """The full resolution's weight: 1/2^i of the levels, the lowest left out, sum to one."""
    return 1 / sum(0.5**level for level in range(max(levels - 2, 1)))


def fingerprint(root: str | Path, labels: Sequence[int] | None = None, mask_threshold: int | None = None) -> Fingerprint:
    """Read every training and validation case once. labels, mask_threshold: as of `Data`."""
    data = Data(str(root), labels=None if labels is None else list(labels), mask_threshold=mask_threshold)
    found = data.find()
    cases = sorted([*found.get("train", []), *found.get("val", [])], key=lambda case: case.id)
    if not cases:
        raise InputError(f"{data.path} has no labelled training cases to plan from")
    random = np.random.default_rng(0)
    shapes, spacings, values, counts = [], [], [], set()
    for case in cases:
        record = data.read(case)
        shapes.append(record.shape)
        spacings.append(record.spacing or (1.0,) * len(record.shape))
        counts.add(len(record.image))
        values.append(foreground(record, SAMPLED // len(cases), random))
    if len({len(shape) for shape in shapes}) > 1:
        raise InputError(f"{data.path} mixes flat images and volumes; plan for each kind by itself")
    if len(counts) > 1 and counts != {1, 3}:
        raise InputError(f"{data.path} has images of {', '.join(map(str, sorted(counts)))} channels; give all cases the same channels")
    channels = max(counts)
    pooled = np.concatenate([np.broadcast_to(v, (channels, v.shape[1])) for v in values], axis=1)
    names = channel_names(data.path, channels)
    classes = 2 if labels is None else len(labels)
    kept = None if labels is None else tuple(labels)
    return Fingerprint(str(root), tuple(shapes), tuple(spacings), names, intensities(pooled), classes, kept, mask_threshold)


def foreground(record: Record, most: int, random: np.random.Generator) -> np.ndarray:
    """(c, n) values of the foreground voxels, or of as many of them by lot."""
    inside = record.image[:, record.truth > 0]
    if inside.shape[1] > most:
        inside = inside[:, random.choice(inside.shape[1], most, replace=False)]
    return inside


def intensities(values: np.ndarray) -> tuple[Intensity, ...]:
    if not values.shape[1]:
        raise InputError("none of the training masks has any foreground; check that the masks are the right files")
    return tuple(Intensity(float(v.mean()), float(v.std()), *map(float, np.percentile(v, (0.5, 99.5)))) for v in values.astype(np.float64))


def channel_names(root: Path, channels: int) -> tuple[str, ...]:
    """As dataset.json has them (nnU-Net v2's channel_names, or modality before), else "channel 0" ..."""
    path = root / "dataset.json"
    content = read_json(path) if path.is_file() else {}
    named = content.get("channel_names", content.get("modality", {})) if isinstance(content, dict) else {}
    if isinstance(named, dict) and len(named) == channels:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    return tuple(f"channel {index}" for index in range(channels))


def plan(found: Fingerprint, dims: Literal[2, 3], budget: int | None = None) -> Plan:
    """nnU-Net's plan of a data set. budget: voxels of a batch that memory has room for; None: as nnU-Net for 8 GB."""
    if dims > found.dims:
        raise InputError(f"{found.root} holds flat images; a plan in 3D is for volumes (dims 2 here)")
    spacing = target_spacing(np.array(found.spacings), np.array(found.shapes))
    shapes = np.array(
        [np.round(np.array(shape) * np.array(own) / spacing) for shape, own in zip(found.shapes, found.spacings, strict=True)]
    )
    shape = np.maximum(np.median(shapes, axis=0), 1)
    axis = None
    if dims < found.dims:
        axis = found.dims - 1 - int(np.argmax(spacing[::-1]))  # the coarsest; the last where all are alike
        spacing, shape = np.delete(spacing, axis), np.delete(shape, axis)
        voxels = prod(shape) * shapes[:, axis].sum()
    else:
        voxels = prod(shape) * len(shapes)
    room = budget or BUDGET[dims]
    made = fitted(tuple(map(float, spacing)), shape, room / EXAMPLES[dims])
    batch = max(min(round(room / prod(made.patch)), round(0.05 * float(voxels) / prod(made.patch))), 2)
    return Plan(
        dims=dims,
        axis=axis,
        spacing=tuple(map(float, spacing)),
        shape=tuple(round(float(n)) for n in shape),
        patch=made.patch,
        features=tuple(min(32 * 2**level, WIDEST[dims]) for level in range(len(made.strides))),
        strides=made.strides,
        kernels=made.kernels,
        batch=batch,
        normalise=normalisation(found),
    )


def target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """(cases, d) mm and voxels -> (d,) mm."""
    target, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [i for i in range(len(target)) if i != worst]
    if target[worst] > 3 * target[others].max() and 3 * size[worst] < size[others].min():
        target[worst] = max(np.percentile(spacings[:, worst], 10), target[others].max() + 1e-5)
    return target


def fitted(spacing: tuple[float, ...], shape: np.ndarray, room: float) -> Topology:
    """The largest patch that has room, and its network."""
    cells = 1 / np.array(spacing)
    most = {2: 2048**2, 3: 256**3}[len(spacing)]
    start = np.round(cells * (most / prod(cells)) ** (1 / len(spacing)))  # a cube in mm
    made = topology(spacing, tuple(int(n) for n in np.maximum(np.minimum(start, shape), 1)))
    while prod(made.patch) > room:
        able = [i for i, n in enumerate(made.patch) if n > 2 * SMALLEST_EDGE]
        if not able:
            raise NoRoomError(f"no patch of {len(spacing)} axes has room in {round(room)} voxels; raise the budget")
        axis = max(able, key=lambda i: made.patch[i] / shape[i])  # the one that sees most of the image
        size = list(made.patch)
        size[axis] -= topology(spacing, tuple(n - made.divisor[i] * (i == axis) for i, n in enumerate(size))).divisor[axis]
        smaller = topology(spacing, tuple(size))
        while prod(smaller.patch) >= prod(made.patch):  # extended to what it was
            size[axis] -= 1
            smaller = topology(spacing, tuple(size))
        made = smaller
    if len(made.strides) < 2:
        raise InputError(
            f"images of {' x '.join(str(round(float(n))) for n in shape)} are too small to plan a U-Net for; an edge of 12 at least is wanted"
        )
    return made


def topology(spacing: Sequence[float], size: Sequence[int]) -> Topology:
    """Strides and kernels of each level."""
    dims = len(spacing)
    now, edge = list(spacing), list(size)
    strides, kernels, kernel = [(1,) * dims], [], [1] * dims
    while True:
        able = [i for i in range(dims) if edge[i] >= 2 * SMALLEST_EDGE]
        able = [i for i in able if now[i] < 2 * min(now[j] for j in able)]
        if not able or (len(able) == 1 and edge[able[0]] < 3 * SMALLEST_EDGE):
            break
        kernel = [3 if k == 3 or now[i] < 2 * min(now) else 1 for i, k in enumerate(kernel)]
        stride = tuple(2 if i in able else 1 for i in range(dims))
        now = [x * s for x, s in zip(now, stride, strict=True)]
        edge = [ceil(n / s) for n, s in zip(edge, stride, strict=True)]
        strides.append(stride)
        kernels.append(tuple(kernel))
    kernels.append((3,) * dims)
    divisor = [prod(along) for along in zip(*strides, strict=True)]
    return Topology(tuple(strides), tuple(kernels), tuple(ceil(n / d) * d for n, d in zip(size, divisor, strict=True)))


def normalisation(found: Fingerprint) -> dict[str, Any]:
    """By the channels' names, as nnU-Net does: CT clipped and standardised by the data set's foreground, the rest z-scored by case."""
    names = {name.strip().lower() for name in found.channels}
    if names == {"rgb_to_0_1"}:
        return {"class_path": "somite.data.normalise.Unit"}
    if names == {"ct"}:
        given = {key: [float(f"{getattr(one, key):.9g}") for one in found.intensities] for key in ("low", "high", "mean", "std")}
        return {"class_path": "somite.data.normalise.Standard", "init_args": given}
    if names & {"ct", "rgb_to_0_1"}:
        raise InputError(
            f"channels of several kinds ({', '.join(found.channels)}) cannot be planned for; name all CT, or none in dataset.json"
        )
    return {"class_path": "somite.data.normalise.ZScore"}


def recipe(found: Fingerprint, made: Plan, fold: int | None, steps: int = STEPS) -> dict[str, Any]:
    channels = len(found.channels)
    dynunet = {"class_path": "somite.networks.baselines.DynUNet", "init_args": made.network(channels, found.classes)}
    mirrored = {"class_path": "somite.networks.mirrored.Mirrored", "init_args": {"network": dynunet}}
    windows = {"class_path": "somite.predict.tiling.Windows", "init_args": {"patch": list(made.patch), "network": mirrored}}
    names = {"mask": "DiceCE", "deep": "DeepSupervision"} if made.levels > 3 else {"mask": "DiceCE"}
    terms = {
        key: {"class_path": f"somite.diffusion.terms.{name}", "init_args": {"weight": supervision(made.levels)}}
        for key, name in names.items()
    }
    preprocess = {"channels": channels, "dims": made.dims, "normalise": made.normalise}
    if found.dims == 3:
        preprocess["spacing_mm"] = list(made.spacing)
    return {
        "task": {"class_path": "somite.tasks.segmentation.Segmentation", "init_args": {"members": 1, "batch": 1}},
        "data": {
            "root": found.root,
            "labels": None if found.labels is None else list(found.labels),
            "mask_threshold": found.mask_threshold,
            "preprocess": preprocess if made.axis is None else {**preprocess, "axis": made.axis},
            "crop": list(made.patch),
            "foreground_rate": 0.33,
            "augment": {"class_path": "somite.data.augment_nnunet.NnUNetAugment"},
            "fold": fold,
            "folds": 5,
        },
        "method": {
            "class_path": "somite.diffusion.methods.FeedForward",
            "init_args": {
                "network": windows,
                "codec": {"class_path": "somite.diffusion.codec.OneHot", "init_args": {"classes": found.classes}},
                "terms": terms,
            },
        },
        "training": {
            "steps": steps,
            "batch": made.batch,
            "optimizer": "sgd",
            "decay": "poly",
            "rate": 1.0e-2,
            "warmup": 0,
            "weight_decay": 3.0e-5,
            "clip": 12.0,
            "ema": 0.0,
            "validate": max(1, min(5000, steps // 20)),
            "patience": None,
        },
    }


def header(found: Fingerprint, made: Plan, fold: int | None, out: Path) -> list[str]:
    """What was planned, and from what."""

    def by(numbers: Iterable[float]) -> str:
        return " x ".join(f"{n:.4g}" for n in numbers)

    sizes = np.array(found.shapes)
    part = "the data's own split" if fold is None else f"fold {fold} of 5"
    lines = [
        f"nnU-Net's plan in {made.dims}D for {found.root}, {part}: MONAI's DynUNet, SGD, deep supervision, mirroring and sliding windows.",
        f"somite train {out} --out runs/{out.stem}",
        f"From {len(sizes)} training and validation cases of {by(sizes.min(0))} to {by(sizes.max(0))}, median {by(np.median(sizes, 0))}, "
        f"spacing {by(np.median(np.array(found.spacings), 0))}; channels {', '.join(found.channels)}; {found.classes} classes with background.",
        "Foreground intensities (mean, std, percentiles 0.5 and 99.5): "
        + "; ".join(f"{i.mean:.5g}, {i.std:.5g}, {i.low:.5g}, {i.high:.5g}" for i in found.intensities)
        + ".",
        f"Planned: target spacing {by(made.spacing)}, median case {by(made.shape)} there, patch {by(made.patch)}, batch {made.batch}, "
        f"{made.levels} levels of {', '.join(map(str, made.features))} channels.",
    ]
    if made.axis is not None:
        lines.append(f"Volumes are cut into slices along axis {made.axis}.")
    return [f"# {line}" for line in lines]
