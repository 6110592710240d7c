"""What is read as the answer once a sampling has ended: the sample itself, a map that the network made beside it, or both.

MedSegDiff's image U-Net segments on its own; its map, the diffusion's sample and their fusion are three answers of one
network, and a report that gives one of them does not say which of its two networks deserves the score.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from ..errors import InputError
from ..types import Shape
from .codec import Codec
from .samplers import Step


class Readout(ABC):
    @abstractmethod
    def __call__(self, last: Step, codec: Codec, shape: Shape) -> Tensor:
        """The answer (b, codec.maps, *s) from the last step of a trajectory; `shape` is the target's in data space."""


class Sampled(Readout):
    """The sample: the default."""

    def __call__(self, last: Step, codec: Codec, shape: Shape) -> Tensor:
        return codec.decode(last.x, shape)


class Auxiliary(Readout):
    """An auxiliary map in [0, 1] of the last evaluation: `cal`, the segmentation of MedSegDiff's image U-Net."""

    def __init__(self, key: str = "cal") -> None:
        self.key = key

    def __call__(self, last: Step, codec: Codec, shape: Shape) -> Tensor:
        maps = last.pred.output.aux
        if self.key not in maps:
            raise InputError(
                f"this network has no map {self.key!r} to read (it has: {', '.join(maps) or 'none'}); only MedSegDiff has one named cal"
            )
        return maps[self.key].clamp(0, 1)


class Fused(Readout):
    """MedSegDiff V1's fusion of the sample's probability s with the auxiliary map: cal + s / 4 where the two disagree
    (Dice of s > 0.5 and cal below 0.65), else their mean.

    # Repository: a single decision for the whole batch, s > 0, and s is the sample in {0, 1} space, not clamped. Here
    each image decides, so that an answer does not depend on what else is in the batch. `official` repeats the original.
    """

    def __init__(self, key: str = "cal", official: bool = False) -> None:
        self.map, self.official = Auxiliary(key), official

    def __call__(self, last: Step, codec: Codec, shape: Shape) -> Tensor:
        cal = self.map(last, codec, shape)
        return fused(last.x, cal) if self.official else fused_each(codec.decode(last.x, shape), cal)


def fused(sample: Tensor, cal: Tensor) -> Tensor:
    """The repository's: one decision for all rows; sample in {0, 1} space as the sampler left it."""
    disagree = overlap((sample > 0).float(), cal, range(cal.ndim)) < 0.65
    return (cal + 0.25 * sample if disagree else 0.5 * cal + 0.5 * sample).clamp(0, 1)


def fused_each(sample: Tensor, cal: Tensor) -> Tensor:
    disagree = overlap((sample > 0.5).float(), cal, range(1, cal.ndim)) < 0.65
    return (cal + 0.25 * sample).clamp(0, 1).where(disagree, 0.5 * cal + 0.5 * sample)


def overlap(mask: Tensor, cal: Tensor, axes: range) -> Tensor:
    """Dice, kept broadcastable."""
    both, each = (x.sum(tuple(axes), keepdim=True) for x in (mask * cal, mask + cal))
    return (2 * both + 1e-5) / (each + 1e-5)


READOUTS = {"sample": Sampled, "cal": Auxiliary, "fused": Fused}
