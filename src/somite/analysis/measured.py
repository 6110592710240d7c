"""The cases of an analysis: their tensors, the partner whose image each is given in place of its own, and the mean image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.dataset import Data
from ..data.record import Case
from ..errors import InputError
from ..tasks.task import Task
from ..types import Sample

CONDITIONS = IMAGE, SHUFFLED, BLANK = "image", "shuffled", "blank"


class Measured:
    """`grey` (c,) is the mean image of all cases; `partner` the number of the case whose image stands in for each one's own."""

    def __init__(self, task: Task, data: Data, cases: Sequence[Case]) -> None:
        self.task, self.data, self.cases = task, data, list(cases)
        total, pixels, foreground, sizes = 0.0, 0, 0, []
        for case in self.cases:
            sample = data.loaded(case)
            image, mask = sample["image"], sample["mask"]
            total = total + image.double().movedim(1, 0).flatten(1).sum(1)
            pixels += mask.numel()
            foreground += int((mask > 0).sum())
            sizes.append(tuple(image.shape[1:]))
        if not foreground:
            raise InputError(f"all {len(cases)} masks of {data.path} are empty here; choose a split or data set with foreground")
        self.grey = (torch.as_tensor(total) / pixels).float()  # (c,)
        self.partner = partners(sizes, [case.group for case in self.cases])

    def sample(self, case: int) -> Sample:
        sample = self.data.loaded(self.cases[case])
        return {**sample, "mask": sample["mask"].long()}

    def image(self, case: int, own: Tensor, condition: str) -> Tensor | None:
        """What stands in for a case's `own` image (n, c, *s); None where it has no partner to take another's from."""
        if condition == IMAGE:
            return own
        if condition == BLANK:
            return self.grey.view(1, -1, *[1] * (own.ndim - 2)).expand_as(own)
        partner = self.partner[case]
        if partner is None:
            return None
        other = self.sample(partner)["image"]
        return other[torch.linspace(0, len(other) - 1, len(own)).round().long()]


def partners(sizes: Sequence[object], groups: Sequence[str]) -> list[int | None]:
    """For each case another of the same size: a permutation without fixed points, of another group wherever it can be.

    Cases of one size, sorted by group, are shifted by the size of the largest group. None for a case alone in its size.
    """
    out: list[int | None] = [None] * len(sizes)
    for size in dict.fromkeys(sizes):
        alike = sorted((i for i, one in enumerate(sizes) if one == size), key=lambda i: (groups[i], i))
        counts = [sum(groups[j] == groups[i] for j in alike) for i in alike]
        if len(alike) > 1:
            shift = max(counts) if max(counts) < len(alike) else 1
            for place, i in enumerate(alike):
                out[i] = alike[(place + shift) % len(alike)]
    return out
