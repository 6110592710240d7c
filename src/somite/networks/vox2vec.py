"""vox2vec (Goncharov et al. 2023, arXiv 2307.14725): a vector for each voxel of a CT, learned by telling voxels apart.

A backbone (`nn.pyramid.FPN`, batch norms) gives a pyramid; a voxel's vector is what its cells hold at all levels, 1008 numbers. Two crops
of a scan, each augmented, show the same voxels, and the vectors of a voxel must be each other's nearest (diffusion/views.py) behind a `Projector`.
Segmentation, from scratch or fine-tuned, is the backbone and a linear head.

    backbone, base 16, 6 levels 47,624,448 weights; linear head of 13 classes 13,117, non-linear 968,029

Images are as published where brightness -1350 .. 1000 HU lies at 0 .. 1 and voxels are of 1 x 1 x 2 mm.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import tensors
from ..errors import InputError
from ..nn.frozen import Start
from ..nn.pyramid import FPN, Backbone, Pyramid, Side, doubled
from ..nn.pyramid_heads import Head, Residual, head_for
from ..types import Cond, Maps, Output, State, Timesteps


class Stage(nn.Module):
    """Two residual blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Residual(channels, 3), Residual(channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Vox2Vec(Backbone):
    """Feed-forward: x and t are ignored, cond["image"] (b, image_channels, h, w, d) gives logits (b, mask_channels, h, w, d).

    base: channels of the finest level, which double at each of `levels`. head: "linear" as published for training from
    scratch and for fine-tuning, or "non-linear". start: a backbone that training begins with, as vox2vec's
    authors released it (vox2vec_contrastive.pt) or within a whole network of ours.
    """

    def __init__(
        self,
        base: int = 16,
        levels: int = 6,
        image_channels: int = 1,
        mask_channels: int = 1,
        head: Head = "linear",
        start: Start | None = None,
    ) -> None:
        super().__init__()
        if levels < 2 or base < 1:
            raise InputError(
                f"a pyramid of {levels} levels from {base} channels is none; --method.network.levels is at least 2, base at least 1"
            )
        self.widths, self.image_channels = doubled(base, levels), image_channels
        self.fpn = FPN(image_channels, self.widths, lambda level: Stage(self.widths[level]))
        self.head = head_for(head, self.widths, mask_channels)
        if start is not None:
            fill(self.fpn, tensors(Path(start.weights)), start.weights)

    def pyramid(self, x: Tensor, t: Timesteps, cond: Cond, side: Side = "decoder") -> Pyramid:
        """vox2vec's own features are the decoder's."""
        image = cond["image"]
        if image.ndim != 5 or image.shape[1] != self.image_channels:
            raise InputError(
                f"this network takes volumes of {self.image_channels} channels, (b, {self.image_channels}, h, w, d), got {tuple(image.shape)}; "
                "set --method.network.image_channels"
            )
        return self.fpn.pyramid(side, image)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        return *self.fpn.parts(), [self.head]

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        return Output(self.head(self.pyramid(x, t, cond)))


class Projector(nn.Module):
    """Voxel vectors (n, width) -> (n, outputs) on the unit sphere, where views are compared; of no use after training."""

    def __init__(self, width: int = 1008, outputs: int = 128) -> None:
        super().__init__()
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True))]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, outputs))

    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(self.layers(vectors), dim=1)


def fill(fpn: FPN, weights: Mapping[str, Tensor], source: str) -> None:
    """Give a backbone published weights. Raises InputError where these are of something else, or of another size."""
    known = {name.removeprefix("method.").removeprefix("network.").removeprefix("fpn."): value for name, value in weights.items()}
    own = fpn.state_dict()
    lacking = [name for name in own if name not in known]
    if lacking:
        raise InputError(f"{source} is no backbone of vox2vec's with {len(fpn.left_blocks) + 1} levels: it lacks {', '.join(lacking[:3])}")
    odd = next((name for name in own if own[name].shape != known[name].shape), None)
    if odd:
        raise InputError(
            f"{source} has {odd} of {tuple(known[odd].shape)}, this network of {tuple(own[odd].shape)}; "
            "set --method.network.base, levels and image_channels to its own"
        )
    fpn.load_state_dict({name: known[name] for name in own})
