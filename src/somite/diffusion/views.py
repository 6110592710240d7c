"""Methods that learn from two views of the same voxels, without labels: where these lie in the body, or which is which.

A sample is two crops of one scan, each augmented by itself, cond["image"] and cond["other"] (b, c, *s), and n voxels that both show: their
indices in either, cond["voxels"] and cond["other_voxels"] (b, n, 3), and as the target (b, 3, n) where they lie, in mm (RAS). Where parts of a
view are hidden, cond["seen"] and cond["other_seen"] say which cells are not (`networks.ape`).
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..nn.coordinates import Displacements, Distances
from ..nn.pyramid import Backbone, Side, at_voxels
from ..types import Cond, Network, Shape, Target
from .codec import Pixelwise
from .methods import Method
from .readout import Sampled

NEEDED = ("image", "other", "voxels", "other_voxels")


class AsItIs(Pixelwise):
    """Numbers with a unit of their own, coordinates say: nothing is scaled and nothing bounded."""

    bound = None

    def __init__(self, channels: int = 3) -> None:
        super().__init__(channels)

    def encode(self, target: Tensor) -> Tensor:
        return target.float()

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        return z


class TwoViews(Method):
    """What a network says of each voxel in either view, and a loss between the two."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.codec, self.terms, self.readout = network, AsItIs(3), {}, Sampled()

    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        absent = [name for name in NEEDED if name not in cond]
        if absent:
            raise InputError(
                f"learning from two views needs two crops of a scan, but the condition lacks {', '.join(absent)}; give such data"
            )
        both = {"image": torch.cat([cond["image"], cond["other"]])}
        if "seen" in cond:
            both["seen"] = torch.cat([cond["seen"], cond["other_seen"]])
        said = self.of_voxels(both, torch.cat([cond["voxels"], cond["other_voxels"]]))
        first, second = said.chunk(2)
        return self.between(first, second, target.transpose(1, 2).float())

    @abstractmethod
    def of_voxels(self, cond: Cond, voxels: Tensor) -> Tensor:
        """A condition with views in "image" (b, c, *s), and voxels (b, n, 3) -> what the network says of each voxel (b, n, k)."""

    @abstractmethod
    def between(self, first: Tensor, second: Tensor, mm: Tensor) -> dict[str, Tensor]:
        """Named losses of what was said in two views (b, n, k) of voxels at `mm` (b, n, 3)."""

    @property
    def steps(self) -> int:
        return 1


class Positions(TwoViews):
    """A network's value (b, 3, *s) is learned to be where voxels lie. by: `Displacements`, which fix axes and unit, or APE's `Distances`.

    Pairs are taken within a scan; the loss is the mean over the batch's scans.
    """

    def __init__(self, network: Network, by: Displacements | Distances) -> None:
        super().__init__(network)
        self.by = by

    def of_voxels(self, cond: Cond, voxels: Tensor) -> Tensor:
        return at_voxels([self.coordinates(cond, cond["image"])], voxels)

    def coordinates(self, cond: Cond, like: Tensor) -> Tensor:
        t = torch.zeros(len(like), dtype=torch.long, device=like.device)
        return self.network(like, t, self.network.encode(cond)).value.float()

    def between(self, first: Tensor, second: Tensor, mm: Tensor) -> dict[str, Tensor]:
        each = [self.by(*views) for views in zip(first, second, mm, strict=True)]
        values = {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}
        return {"loss": torch.stack([*values.values()]).sum(), **values}

    @torch.no_grad()
    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        """Coordinates of every voxel of cond["image"], (b, 3, *s); there is nothing random in them."""
        image = cond["image"] if of is None else cond["image"][list(of)]
        return self.coordinates({"image": image}, image)


class Contrast(TwoViews):
    """vox2vec's pretext (arXiv 2307.14725): a voxel's two vectors must be each other's nearest among all that the batch's views show, behind
    `projector`, (n, k) to the unit sphere, which is of no use after training. side: of the backbone, whose features are learned.
    """

    network: Backbone

    def __init__(self, network: Backbone, projector: nn.Module, temperature: float = 0.1, side: Side = "decoder") -> None:
        super().__init__(network)
        self.projector, self.temperature = projector, temperature
        self.side: Side = side

    def of_voxels(self, cond: Cond, voxels: Tensor) -> Tensor:
        image = cond["image"]
        t = torch.zeros(len(image), dtype=torch.long, device=image.device)
        return at_voxels(self.network.pyramid(image, t, {"image": image}, self.side), voxels)

    def between(self, first: Tensor, second: Tensor, mm: Tensor) -> dict[str, Tensor]:
        one, other = self.projector(torch.cat([first, second]).flatten(0, 1)).chunk(2)
        return {"loss": info_nce(one, other, self.temperature)}

    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        raise InputError("what is learned by contrast are features; train a probe on them: somite train probe/small --backbone RUN")


def info_nce(first: Float[Tensor, "n c"], second: Float[Tensor, "n c"], temperature: float = 0.1) -> Float[Tensor, ""]:
    """-log of the share that a voxel's other view has among all other vectors of both views, exp(similarity / temperature) each, mean
    over 2n; row i of both is the same voxel, and rows are unit vectors.
    """
    both = torch.cat([first, second]).float()
    similarity = (both @ both.T / temperature).masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(both), device=both.device).roll(len(first)))
