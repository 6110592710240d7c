"""Synthetic cases: smooth blobs on a textured ground, in 2D and 3D. What tests and documentation run on."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch.nn.functional import interpolate

from ..files import write_json, write_text
from ..rng import normal, seeded, uniform
from .geometry import Geometry
from .images import write_png
from .nifti import write_volume

_CPU = torch.device("cpu")


def phantom(
    index: int, size: tuple[int, ...] = (64, 64), channels: int = 3, classes: int = 1, seed: int = 0
) -> tuple[Float32[np.ndarray, "c *s"], UInt8[np.ndarray, "*s"]]:
    """An image in [0, 1] and its labels, 0 for the ground; the same for the same (index, seed), on every machine.

    classes counts the kinds of blob: one to three blobs in all, but at least one of each kind.
    """
    if len(size) not in (2, 3) or min(size) < 8:
        raise ValueError(f"a phantom has 2 or 3 axes of at least 8, got {size}")
    with seeded(seed, [f"phantom {index}"]):
        labels = _blobs(size, classes)
        colours = np.tile(0.15 + 0.25 * _uniform(channels), (*size, 1))  # (*s, c)
        for label in range(1, classes + 1):
            contrast = 0.3 + 0.2 * _uniform(channels) + 0.1 * (label - 1)
            colours[labels == label] += contrast
        image = np.moveaxis(colours, -1, 0) + 0.05 * _smooth(size, 6) + 0.03 * _normal(channels, *size)
    return np.clip(image, 0, 1).astype(np.float32), labels


def write_phantoms(root: str | Path, n: int, size: tuple[int, ...] = (64, 64), channels: int = 3, classes: int = 1, seed: int = 0) -> Path:
    """Write n >= 3 phantoms as `images/`, `masks/`, `splits.json`, `groups.csv` (two cases a patient from n = 6 on) and `labels.csv`.

    The label is whether a case's blobs cover more than the median case's: `large`, else `small`.
    2D phantoms are 8-bit PNG, 3D ones NIfTI of 1 x 1 x 2 mm. The last fifth of the patients is the test split, the
    fifth before it the validation.
    """
    if n < 3:
        raise ValueError(f"three splits want at least 3 cases, got {n}")
    root = Path(root)
    names = [f"case{index:03d}" for index in range(n)]
    covered = []
    for index, name in enumerate(names):
        image, labels = phantom(index, size, channels, classes, seed)
        covered.append(np.count_nonzero(labels))
        if len(size) == 2:
            _write_flat(root, name, image, labels * 255 if classes == 1 else labels)
        else:
            where = Geometry(np.diag([-1.0, -1.0, 2.0, 1.0]), size)
            write_volume(root / "images" / f"{name}.nii.gz", image, where)
            write_volume(root / "masks" / f"{name}.nii.gz", labels, where)
    patients = [index // 2 if n >= 6 else index for index in range(n)]
    count = patients[-1] + 1
    held = max(1, count // 5)
    bounds = {"train": (0, count - 2 * held), "val": (count - 2 * held, count - held), "test": (count - held, count)}
    splits = {key: [m for m, p in zip(names, patients, strict=True) if a <= p < b] for key, (a, b) in bounds.items()}
    write_json(root / "splits.json", splits)
    rows = [f"{name},patient{patient:03d}" for name, patient in zip(names, patients, strict=True)]
    write_text(root / "groups.csv", "\n".join(["id,group", *rows]) + "\n")
    sizes = ["large" if area > np.median(covered) else "small" for area in covered]
    write_text(root / "labels.csv", "\n".join(["id,size", *(f"{name},{size}" for name, size in zip(names, sizes, strict=True))]) + "\n")
    return root


def _write_flat(root: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    if len(image) not in (1, 3):
        raise ValueError(f"a PNG has 1 or 3 channels, got {len(image)}")
    pixels = np.rint(np.moveaxis(image, 0, -1) * 255).astype(np.uint8)
    write_png(root / "images" / f"{name}.png", pixels[..., 0] if len(image) == 1 else pixels)
    write_png(root / "masks" / f"{name}.png", labels)


def _blobs(size: tuple[int, ...], classes: int) -> UInt8[np.ndarray, "*s"]:
    """Turned ellipses with wavy borders, spread around the middle so that none covers another."""
    axes = [(np.arange(n) + 0.5) / n for n in size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # (*s, dims)
    count = max(classes, 1 + int(3 * _uniform(1)[0]))
    start = 2 * math.pi * _uniform(1)[0]
    labels = np.zeros(size, dtype=np.uint8)
    for blob in range(count):
        angle = start + 2 * math.pi * blob / count
        centre = np.full(len(size), 0.5)
        centre[:2] += 0.22 * np.array([math.cos(angle), math.sin(angle)])
        radii = (0.12 + 0.1 * _uniform(len(size))) * min(1.0, 3 / count)
        turn, _ = np.linalg.qr(_normal(len(size), len(size)))
        distance = (((grid - centre) @ turn / radii) ** 2).sum(axis=-1)
        labels[distance + 0.25 * np.clip(_smooth(size, 4), -2, 2) < 1] = 1 + blob % classes
    return labels


def _smooth(size: tuple[int, ...], cells: int) -> Float32[np.ndarray, "*s"]:
    """Noise of few cells, stretched to the size."""
    coarse = normal((1, 1, *[cells] * len(size)), _CPU)
    fine = interpolate(coarse, size=size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=True)
    return fine[0, 0].numpy()


def _uniform(*shape: int) -> np.ndarray:
    return uniform((1, *shape), _CPU)[0].numpy()


def _normal(*shape: int) -> np.ndarray:
    return normal((1, *shape), _CPU)[0].numpy()
