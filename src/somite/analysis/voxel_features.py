"""Features of a few voxels of a labelled volume, at each timestep and of each map of a backbone: what closed-form probes are fitted on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ..diffusion.features import features, field
from ..diffusion.methods import Diffusion, Method
from ..nn.pyramid import Backbone, at_voxels
from ..rng import derive
from ..types import Cond, Sample

Window = tuple[int, ...]  # where it begins


@dataclass(frozen=True)
class Voxels:
    """Of one case: n voxels (n, 3), their classes (n,), and for how many voxels of the case each stands (n,)."""

    case: str
    at: Tensor
    labels: Tensor
    stands_for: Tensor
    volume: Tensor  # (k,) voxels of each class in the case


def drawn(case: str, mask: Tensor, inside: Tensor, classes: int, each: int, seed: int) -> Voxels:
    """At most `each` voxels of each class of a mask (*s), inside the body (*s), a function of (seed, case)."""
    random = np.random.default_rng(derive(seed, "voxels", case))
    at, labels, weights = [], [], []
    volume = torch.zeros(classes, dtype=torch.long)
    for label in range(classes):
        every = ((mask == label) & inside).nonzero()
        volume[label] = len(every)
        if len(every):
            chosen = torch.as_tensor(random.permutation(len(every))[:each])
            at.append(every[chosen])
            labels.append(torch.full((len(chosen),), label))
            weights.append(torch.full((len(chosen),), len(every) / len(chosen), dtype=torch.float64))
    return Voxels(case, torch.cat(at), torch.cat(labels), torch.cat(weights), volume)


@dataclass(frozen=True)
class Reading:
    """How a backbone is read. timesteps: of a diffusion, [0] for others. noise: one field a timestep for all cases of a size, or none.
    patch: the window that it is asked for at once, None for whole volumes.
    """

    method: Method
    timesteps: Sequence[int]
    noise: bool
    patch: Sequence[int] | None

    @property
    def backbone(self) -> Backbone:
        network = self.method.network
        assert isinstance(network, Backbone)
        return network

    def of(self, sample: Sample, voxels: Voxels, seed: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """By timestep: the vectors (n, c) of each map, named "encoder 0" ... and "decoder 0" ..., finest first; the bottom is the encoder's.

        A voxel is read in the window whose middle is nearest to it.
        """
        space = tuple(sample["image"].shape[2:])
        windows = list(self.windows(space))
        middles = torch.tensor([[start + size / 2 for start, size in zip(one, self.size(space), strict=True)] for one in windows])
        nearest = torch.cdist(voxels.at.double() + 0.5, middles.double()).argmin(1)
        x0 = self.method.codec.encode(sample["image"])
        for t in self.timesteps:
            noise = field(tuple(x0.shape[1:]), seed, t) if self.noise else None
            found: dict[str, Tensor] = {}
            for index, start in enumerate(windows):
                rows = (nearest == index).nonzero()[:, 0]
                if len(rows):
                    cut = tuple(slice(a, a + n) for a, n in zip(start, self.size(space), strict=True))
                    maps = self.maps(x0, sample, noise, cut, t)
                    inner = voxels.at[rows] - torch.tensor(start)
                    for name, (level, cells) in maps.items():
                        read = at_voxels([cells], inner[None] // 2**level)[0].float()
                        found.setdefault(name, read.new_zeros(len(voxels.at), read.shape[1]))[rows] = read
            yield t, found

    def size(self, space: Sequence[int]) -> Window:
        return tuple(space) if self.patch is None else tuple(min(n, want) for n, want in zip(space, self.patch, strict=True))

    def windows(self, space: Sequence[int]) -> Iterator[Window]:
        """Half-overlapping, the last of each axis at its end."""
        size = self.size(space)
        starts = [sorted({*range(0, n - want, max(1, want // 2)), n - want}) for n, want in zip(space, size, strict=True)]
        yield from product(*starts)

    @torch.no_grad()
    def maps(self, x0: Tensor, sample: Sample, noise: Tensor | None, cut: tuple[slice, ...], t: int) -> dict[str, tuple[int, Tensor]]:
        """Each map of one window with its level."""
        here = x0[(..., *cut)]
        known: Cond = {"coordinates": sample["coordinates"][(..., *cut)]} if "coordinates" in sample else {}
        schedule = self.method.schedule if isinstance(self.method, Diffusion) else None
        if schedule is None:
            known["image"] = sample["image"][(..., *cut)]
        pyramid = features(self.backbone, here, known, schedule, [t], None if noise is None else [noise[(..., *cut)]], "both")
        found = {}
        for level, cells in enumerate(pyramid):
            width = self.backbone.widths[level]
            found[f"encoder {level}"] = (level, cells[:, :width])
            if level < len(pyramid) - 1:
                found[f"decoder {level}"] = (level, cells[:, width:])
        return found
