"""Where in the body a voxel lies, as networks predict it: maps of coordinates read at voxels, waves of them, and by what they are learned.

Positions are in mm along right, anterior and superior (RAS); vectors (n, 3) are of single voxels, and row i of two views is the same voxel.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


def at_voxels(cells: Float[Tensor, "b c h w d"], voxels: Int[Tensor, "b n 3"], stride: int) -> Float[Tensor, "b n c"]:
    """A map of which a cell is `stride` voxels along each axis, read between the centres of its cells, and at the border as they are."""
    size = torch.tensor(cells.shape[2:], device=cells.device)
    place = 2 * (voxels + 0.5) / (stride * size) - 1  # -1 and 1 are the outer faces of the map
    found = F.grid_sample(cells, place.flip(2)[:, :, None, None].to(cells.dtype), padding_mode="border", align_corners=False)
    return found[..., 0, 0].transpose(1, 2)


def enlarged(cells: Float[Tensor, "b c h w d"], space: tuple[int, ...], stride: int) -> Float[Tensor, "b c hh ww dd"]:
    """`at_voxels` for all voxels of a volume of this size."""
    for axis, size in enumerate(space, 2):
        place = ((torch.arange(size, device=cells.device) + 0.5) / stride - 0.5).clamp(0, cells.shape[axis] - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=cells.shape[axis] - 1)
        share = (place - low).to(cells.dtype).reshape(-1, *[1] * (cells.ndim - 1 - axis))
        cells = torch.lerp(cells.index_select(axis, low), cells.index_select(axis, high), share)
    return cells


def waves(coordinates: Float[Tensor, "b k *s"], frequencies: int = 4) -> Float[Tensor, "b c *s"]:
    """Sines, then cosines, of 2 pi f times each coordinate, c = 2 k frequencies; f from 1/2 to 4 by equal factors: APE's `to_sin_cos`."""
    angles = [2 * math.pi * f * coordinates for f in (2.0 ** torch.linspace(-1, 2, frequencies)).tolist()]
    return torch.cat([*(angle.sin() for angle in angles), *(angle.cos() for angle in angles)], 1)


def invariance(first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean squared difference of what two views say of the same voxels."""
    return (first - second).square().mean()


class Distances(nn.Module):
    """APE's loss (Sokolov et al. 2024, arXiv 2409.10291): Euclidean distances between what two views say should be those between voxels,
    of which each axis is standardised within the batch; coordinates are weighed by a learned scale of each axis. Mean over all n^2 pairs.

    Distances know neither axes nor origin: what is learned is the body up to a rotation, a reflection and a shift.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"], mm: Float[Tensor, "n 3"]) -> dict[str, Tensor]:
        """Named "distance" and "invariance"; the loss is their sum."""
        first, second = first * self.scale, second * self.scale
        standard = (mm - mm.mean(0)) / mm.std(0)
        apart = between(first, second) - between(standard, standard)
        return {"distance": apart.square().mean(), "invariance": invariance(first, second)}


class Displacements(nn.Module):
    """Signed displacements: what the views say of any two voxels should differ by their displacement in mm, divided by `unit`.

    Unlike distances these fix the axes, their signs and the scale, and a constant answer is not optimal; only the origin is free, which
    two crops of one scan share. | . |_1 is the sum over axes, mean over all n^2 pairs.
    """

    def __init__(self, unit: float = 100.0) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"], mm: Float[Tensor, "n 3"]) -> dict[str, Tensor]:
        """Named "displacement", "invariance", and "order": by how much superior voxels are said to be inferior. The loss is their sum."""
        wanted = (mm[:, None] - mm[None]) / self.unit
        found = first[:, None] - second[None]
        order = F.relu(-wanted[..., 2].sign() * found[..., 2])
        return {
            "displacement": (found - wanted).abs().sum(2).mean(),
            "invariance": invariance(first, second),
            "order": order.mean(),
        }


def between(first: Tensor, second: Tensor) -> Tensor:
    """(n, n) distances, by differences: torch.cdist's products would cancel for near voxels."""
    square = (first[:, None] - second[None]).square().sum(2)
    return square.clamp(min=1e-12).sqrt()  # with a gradient where two say the same
