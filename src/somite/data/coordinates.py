"""Where in the body each voxel of a volume lies, as a condition: made once of the whole volume, and cut and turned with its patches."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from ..rng import seeded, uniform
from .record import Record

CELLS = 5  # along each axis of a volume: as many hills as `Scrambled` has room for


class Coordinates(ABC):
    """Volumes come in the network's grid, whose axes run to the right (R), to the front (A) and to the head (S)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For model cards: where the coordinates are from."""

    @abstractmethod
    def __call__(
        self,
        image: Float[Tensor, "c h w d"],
        record: Record,
        spacing: tuple[float, ...] | None,
        body: Integer[Tensor, "1 h w d"] | None,
    ) -> Float[Tensor, "3 h w d"]:
        """Coordinates of each voxel, along R, A and S, of about -1 to 1.

        image: the whole volume as the network sees it, normalised. record: the case as it was read. spacing: mm between voxels of
        `image`; None where the files don't say. body: 1 in the body; None where it is not known.
        """

    @property
    def settings(self) -> object:
        """What its answers depend on beside the volume: what is kept on disk is told apart by it. Here all attributes but those that begin
        with an underscore, which are for what is made of the others.
        """
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class BodyBox(Coordinates):
    """The box of the body, or of the volume where no body is known, from -1 to 1 along each axis: no training, and no more truth than that
    scans show about the same part. Values are of the voxels' centres; voxels outside of the box lie beyond.
    """

    @property
    def name(self) -> str:
        return "the box of the body, from -1 to 1"

    def __call__(
        self,
        image: Float[Tensor, "c h w d"],
        record: Record,
        spacing: tuple[float, ...] | None,
        body: Integer[Tensor, "1 h w d"] | None,
    ) -> Float[Tensor, "3 h w d"]:
        space, there = image.shape[1:], None if body is None else body[0] > 0
        lines = []
        for axis, size in enumerate(space):
            others = [other for other in range(3) if other != axis]
            line = range(size) if there is None else there.sum(others).nonzero()[:, 0].tolist()
            low, high = (line[0], line[-1] + 1) if len(line) else (0, size)
            place = (torch.arange(size, dtype=torch.float64) + 0.5 - low) / (high - low)
            lines.append((2 * place - 1).float())
        return torch.stack(torch.meshgrid(*lines, indexing="ij"))


class Scrambled(Coordinates):
    """No truth at all: hills and valleys from -1 to 1, as smooth as true coordinates, a function of (seed, case) and of the volume's size
    alone. The control to an ablation: what a network gains by these it does not owe to knowing where it is.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    def name(self) -> str:
        return f"scrambled, with no truth in them (a control, seed {self.seed})"

    def __call__(
        self,
        image: Float[Tensor, "c h w d"],
        record: Record,
        spacing: tuple[float, ...] | None,
        body: Integer[Tensor, "1 h w d"] | None,
    ) -> Float[Tensor, "3 h w d"]:
        with seeded(self.seed, [f"coordinates of {record.case.id}"]):
            cells = 2 * uniform((1, 3, CELLS, CELLS, CELLS), torch.device("cpu")) - 1
        return F.interpolate(cells, size=image.shape[1:], mode="trilinear", align_corners=True)[0]
