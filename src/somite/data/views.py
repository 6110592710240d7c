"""Two views of one scan: overlapping windows, each with a look of its own, and voxels that both show. For methods that learn without labels.

What is a voxel here is a voxel of the preprocessed volume; its axes run to the right, to the front and to the head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..types import Sample

Random = np.random.Generator
TRIES = 256  # at an anchor in the body, before the whole volume is looked through
CELL = 4  # voxels along each axis of a cell of the networks that hide blocks


@dataclass(frozen=True)
class Window:
    """start, step: along each axis, where the first face of the window lies, in voxels of the volume from its own first face, and how many
    of them one voxel of the view is long. size: voxels of the view. space: of the volume.
    """

    start: tuple[float, ...]
    step: tuple[float, ...]
    size: tuple[int, ...]
    space: tuple[int, ...]

    def covers(self) -> list[tuple[int, int]]:
        """Along each axis, of which voxels of the volume the centres lie in it: from, to."""
        ends = [start + step * n for start, step, n in zip(self.start, self.step, self.size, strict=True)]
        return [
            (max(0, math.ceil(start - 0.5)), min(n, math.ceil(end - 0.5)))
            for start, end, n in zip(self.start, ends, self.space, strict=True)
        ]

    def holding(self, voxels: Integer[np.ndarray, "n 3"]) -> Integer[np.ndarray, "n 3"]:
        """The voxels of the view in which the centres of the volume's voxels lie."""
        place = np.floor((voxels + 0.5 - np.array(self.start)) / np.array(self.step)).astype(np.int64)
        return place.clip(0, np.array(self.size) - 1)

    def view(self, image: Tensor) -> Tensor:
        """(c, *space) -> (c, *size): linear between voxels, and where the volume ends as dark as its darkest voxel here, air or so."""
        lines = []
        for axis, (start, step, size, have) in enumerate(zip(self.start, self.step, self.size, self.space, strict=True), 1):
            place = start + step * (torch.arange(size, dtype=torch.float64) + 0.5) - 0.5  # in voxels from the first one's centre
            low, high = (line.clamp(0, have - 1) for line in (place.floor().long(), place.floor().long() + 1))
            image = image.narrow(axis, int(low[0]), int(high[-1] - low[0]) + 1)  # all axes before anything is copied
            lines.append((axis, place, low - low[0], high - low[0], (place + 0.5 + step / 2 <= 0) | (place + 0.5 - step / 2 >= have)))
        darkest = float(image.min())
        for axis, place, low, high, beyond in lines:
            share = place - place.floor()
            near = image.index_select(axis, low)
            if bool(share.any()):
                near = torch.lerp(near, image.index_select(axis, high), share.to(image.dtype).reshape(-1, *[1] * (image.ndim - 1 - axis)))
            image = near.index_fill(axis, beyond.nonzero()[:, 0], darkest)
        return image


class Views:
    """size: of each view, one number or one an axis. voxels: how many of those that both show are told, drawn again where there are fewer.

    spacing_mm: each view has a spacing of its own, drawn evenly from [low, high] for each axis, and is resampled to it linearly; a voxel
    of the view then holds the place that is told, up to half a voxel from its centre. None: the volume's own, and nothing is resampled.

    Looks, each drawn for each view by itself; numbers are shares of `values`, the range of normalised images (null: they have none, and
    brightness is left alone):
    blur_rate: blurred or, as often, sharpened in the plane of the first two axes, by a Gaussian of blur_sigma voxels [low, high].
    noise_rate: Gaussian noise of a standard deviation up to `noise`. window_rate: a window that begins up to `darkest` above the range's lower end and ends
    up to `brightest` below its upper end is stretched to it, and what lies outside is cut off.

    hide_rate, hide_share, hide_block: in so many views blocks of so many voxels are hidden until about this share is; entries "seen" and
    "other_seen" (1, *size / 4), 0 for hidden cells of 4 x 4 x 4 voxels, where the rate is above 0. The image itself is left whole.

    Defaults are vox2vec's (arXiv 2307.14725) for images of -1350 to 1000 HU; APE (arXiv 2409.10291) has spacing_mm
    [[1, 4], [1, 4], [1.5, 6]] and hides blocks of [24, 24, 16], a share of 0.6 in half of the views.
    """

    # Paper: how much is sharpened is not said; here: up to as much again as blurring would take away.

    def __init__(
        self,
        size: list[int] | int,
        voxels: int = 1024,
        spacing_mm: list[list[float]] | None = None,
        values: Sequence[float] | None = (0.0, 1.0),
        blur_rate: float = 0.5,
        blur_sigma: Sequence[float] = (0.25, 1.5),
        noise_rate: float = 0.5,
        noise: float = 0.013,
        window_rate: float = 0.8,
        darkest: float = 0.15,
        brightest: float = 0.3,
        hide_rate: float = 0.0,
        hide_share: float = 0.6,
        hide_block: Sequence[int] = (24, 24, 16),
    ) -> None:
        self.size = [size] * 3 if isinstance(size, int) else list(size)
        self.voxels, self.spacing_mm, self.values = voxels, spacing_mm, values
        self.blur_rate, self.blur_sigma, self.noise_rate, self.noise = blur_rate, blur_sigma, noise_rate, noise
        self.window_rate, self.darkest, self.brightest = window_rate, darkest, brightest
        self.hide_rate, self.hide_share, self.hide_block = hide_rate, hide_share, hide_block
        self.refuse()

    def refuse(self) -> None:
        def ranged(pair: Sequence[float], least: float) -> bool:
            return len(pair) == 2 and least <= pair[0] <= pair[1]

        if len(self.size) != 3 or min(self.size) < 1 or self.voxels < 1:
            raise InputError(f"--data.views: three sizes and a number of voxels of at least 1, got {self.size} and {self.voxels}")
        if self.spacing_mm is not None and not (len(self.spacing_mm) == 3 and all(ranged(one, 1e-3) for one in self.spacing_mm)):
            raise InputError(f"--data.views.spacing_mm {self.spacing_mm}: give [low, high] above 0 for each of three axes, or null")
        if self.values is not None and not (len(self.values) == 2 and self.values[0] < self.values[1]):
            raise InputError(f"--data.views.values {self.values}: give the lowest and the highest value of normalised images, or null")
        if not ranged(self.blur_sigma, 0) or self.noise < 0 or min(self.darkest, self.brightest) < 0 or self.darkest + self.brightest >= 1:
            raise InputError("--data.views: blur_sigma is [low, high], noise at least 0, and darkest and brightest together below 1")
        if len(self.hide_block) != 3 or min(self.hide_block) < CELL or not 0 <= self.hide_share < 1:
            raise InputError(f"--data.views: hide_block is three sizes from {CELL} on, and hide_share at least 0 and below 1")

    def __call__(self, image: Tensor, body: Tensor | None, spacing: Sequence[float], random: Random) -> Sample:
        """image (c, *s) and body (1, *s) of a whole volume, its spacing in mm -> {"image", "other": (c, *size), "voxels", "other_voxels":
        (n, 3), "mm": (3, n) from the volume's first corner, in which the two views agree}.
        """
        space = tuple(image.shape[1:])
        anchor = somewhere(body, space, random)
        first, other = (self.window(anchor, space, spacing, random) for _ in range(2))
        shared = [(max(a, b), min(c, d)) for (a, c), (b, d) in zip(first.covers(), other.covers(), strict=True)]
        voxels = self.drawn(body, shared, random)
        sample = {
            "image": self.looked(first.view(image), random),
            "other": self.looked(other.view(image), random),
            "voxels": torch.from_numpy(first.holding(voxels)),
            "other_voxels": torch.from_numpy(other.holding(voxels)),
            "mm": torch.from_numpy(((voxels + 0.5) * np.array(spacing)).T.astype(np.float32)),
        }
        if self.hide_rate:
            sample |= {name: self.seen(random) for name in ("seen", "other_seen")}
        return sample

    def window(self, anchor: Sequence[int], space: tuple[int, ...], spacing: Sequence[float], random: Random) -> Window:
        """A random window that shows the anchor: of the volume as far as it reaches, or all of it where it does not reach that far."""
        starts, steps = [], []
        for axis, (at, have, size) in enumerate(zip(anchor, space, self.size, strict=True)):
            if self.spacing_mm is None:
                low, high = (max(0, at + 1 - size), min(at, have - size)) if size < have else (have - size, 0)
                starts.append(float(random.integers(low, high + 1)))
                steps.append(1.0)
                continue
            steps.append(between(self.spacing_mm[axis], random) / spacing[axis])
            length = steps[-1] * size
            low, high = (max(0.0, at + 0.5 - length), min(at + 0.5, have - length)) if length < have else (have - length, 0.0)
            starts.append(low + (high - low) * random.uniform(1e-6, 1 - 1e-6))  # not to the ends, where rounding could lose the anchor
        return Window(tuple(starts), tuple(steps), tuple(self.size), space)

    def drawn(self, body: Tensor | None, box: Sequence[tuple[int, int]], random: Random) -> Integer[np.ndarray, "n 3"]:
        """Voxels of the body in a box of the volume, each once where there are enough."""
        size = [high - low for low, high in box]
        here = None if body is None else body[0, *(slice(low, high) for low, high in box)]
        inside = np.arange(math.prod(size)) if here is None or not bool(here.any()) else np.flatnonzero(here.contiguous().numpy())
        chosen = inside[random.choice(len(inside), self.voxels, replace=len(inside) < self.voxels)]
        return np.stack(np.unravel_index(chosen, size), 1) + np.array([low for low, _ in box])

    def looked(self, image: Tensor, random: Random) -> Tensor:
        """The look of one view."""
        happens = [bool(random.random() < rate) for rate in (self.blur_rate, self.noise_rate, self.window_rate)]
        low, high = self.values or (0.0, 1.0)
        span = high - low
        if happens[0]:
            smooth = blurred(image, between(self.blur_sigma, random))
            image = smooth if random.random() < 0.5 else image + float(random.random()) * (image - smooth)
        if happens[1]:
            noise = random.standard_normal(tuple(image.shape), np.float32)
            image = image + float(random.uniform(0, self.noise * span)) * torch.from_numpy(noise)
        if self.values is None:
            return image
        if happens[2]:
            dark, bright = low + span * random.uniform(0, self.darkest), high - span * random.uniform(0, self.brightest)
            image = low + span * (image - dark) / (bright - dark)
        return image.clamp(low, high)

    def seen(self, random: Random) -> Tensor:
        """(1, *size / 4) of 0 and 1."""
        cells = [max(1, n // CELL) for n in self.size]
        blocks = [max(1, n // CELL) for n in self.hide_block]
        counts = [math.ceil(n / block) for n, block in zip(cells, blocks, strict=True)]
        hidden = np.zeros(math.prod(counts), bool)
        if random.random() < self.hide_rate:
            hidden[random.permutation(len(hidden))[: round(self.hide_share * len(hidden))]] = True
        coarse = hidden.reshape(counts)
        for axis, block in enumerate(blocks):
            coarse = coarse.repeat(block, axis)
        return torch.from_numpy(~coarse[tuple(slice(n) for n in cells)])[None].float()


def between(ends: Sequence[float], random: Random) -> float:
    return float(random.uniform(ends[0], ends[1]))


def somewhere(body: Tensor | None, space: Sequence[int], random: Random) -> list[int]:
    """A voxel of the body, each as likely; of the volume where there is none. Tried at random first, which reads next to nothing."""
    for _ in range(TRIES):
        voxel = [int(random.integers(n)) for n in space]
        if body is None or bool(body[0, *voxel]):
            return voxel
    inside = np.arange(0) if body is None else np.flatnonzero(body[0].contiguous().numpy())
    flat = int(inside[random.integers(len(inside))]) if len(inside) else int(random.integers(math.prod(space)))
    return [int(i) for i in np.unravel_index(flat, tuple(space))]


def blurred(image: Tensor, sigma: float) -> Tensor:
    """(c, x, y, z) by a Gaussian along x and y, the edges repeated."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    for axis in (2, 3):
        edges = [0, 0, *((radius, radius) if axis == 3 else (0, 0)), *((radius, radius) if axis == 2 else (0, 0))]
        shape = [1, 1, *(-1 if other == axis else 1 for other in (2, 3, 4))]
        image = F.conv3d(F.pad(image[:, None], edges, mode="replicate"), kernel.reshape(shape))[:, 0]
    return image
