"""Random windows of images and of what lies over them."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..nn.padding import mirrored
from ..types import Sample
from .augment import spatial


def cropped(sample: Sample, crop: int | list[int], centre: Sequence[int] | None, random: np.random.Generator) -> Sample:
    """A random window, around `centre` where one is given; smaller images are mirrored to the window's size. What it cuts is not copied."""
    space, maps = sample["image"].shape[1:], spatial(sample)
    size = [crop] * len(space) if isinstance(crop, int) else list(crop)
    if len(size) != len(space):
        raise InputError(f"--data.crop {crop} has {len(size)} numbers for {len(space)} axes; give one an axis, or one for all")
    for axis, (have, want) in enumerate(zip(space, size, strict=True)):
        if have < want:
            continue
        if centre is not None:
            start = int(np.clip(centre[axis] - random.integers(want), 0, have - want))
        else:
            start = int(random.integers(have - want + 1))
        maps = {name: part.narrow(axis + 1, start, want) for name, part in maps.items()}
    for axis, (have, want) in enumerate(zip(space, size, strict=True)):  # last, because it copies
        if have < want:
            maps = {name: mirrored(part, axis + 1, want) for name, part in maps.items()}
    return {**sample, **maps}


def chosen(mask: Tensor, foreground: Tensor | None, random: np.random.Generator) -> list[int] | None:
    """A voxel (n, 0, *s) of a mask's foreground, each as likely, if it has any. foreground: where it is, flat, if that is known."""
    if foreground is None:
        foreground = mask.flatten().nonzero()[:, 0]
    if not len(foreground):
        return None
    return [int(i) for i in np.unravel_index(int(foreground[random.integers(len(foreground))]), tuple(mask.shape))]
