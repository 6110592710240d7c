"""M3D-NCA: feed-forward segmentation by a pyramid of cellular automata (Kalkhof & Mukhopadhyay 2023, arXiv 2309.02954).

A cell's channels: [image (pinned) | logits | free ...]. The first automaton runs on the coarsest image; its cells are enlarged, given
the image of the next level, and handed to the automaton of that level, with weights of its own, up to full resolution. A cell perceives
through one depthwise convolution, wide at the coarse levels, whose updates are cheap, and narrow at the fine ones.

    kernel [7, 3], channels 16, hidden 64     8,768 + 3,712 = 12,480 weights (the default)

OctreeNCA (Lemke et al. 2025, arXiv 2508.06993) is the same network with five levels a factor 2 apart, 20 updates at the coarsest and 5 at
each finer one, kernel 3. # Paper: its last layer has no rows for the pinned channels; here: it has, and they change nothing.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.automaton import Automaton, BatchNorm, Firing, at_least_one
from ..nn.levels import Each, Parts, answered, each, fitting, holding, patched, shrinkable, whole
from ..nn.padding import covered
from ..nn.perception import Perception
from ..nn.tiled import tileable
from ..types import Cond, Maps, Network, Output, State, Timesteps


class M3DNCA(Network):
    """`levels`, each `scale` times as fine as the one before it; of `scale`, one number or one for each step between levels.

    patch: in training the levels but the coarsest see a random part of what the one before them saw, so many cells along each axis (a
    number, or one an axis), and the loss is of the last part alone: so memory does not grow with the volume. None: all of it.
    norm: # Paper: "batch", by the statistics of all cells of all images at hand, in training and at inference, so that an answer depends
    on what else is in the batch, and a patch is another matter than the whole; here: "cell", each cell by its own hidden units, with as
    many weights.
    downsample: "max", the largest value of each block; "nearest", one pixel of it, as OctreeNCA (arXiv 2508.06993) does.
    firing, arithmetic, tile: at inference, as in `MedNCA`; training is always stochastic.
    """

    def __init__(
        self,
        channels: Each = 16,
        hidden: Each = 64,
        updates: Each = 10,
        kernel: Each = [7, 3],  # noqa: B006 - never changed
        levels: int = 2,
        scale: Each = 2,
        patch: Each | None = None,
        norm: Literal["cell", "batch"] = "cell",
        downsample: Literal["max", "nearest"] = "max",
        image_channels: int = 1,
        mask_channels: int = 1,
        update_rate: float = 0.5,
        dims: Literal[2, 3] = 3,
        checkpointing: bool = True,
        firing: Firing | None = None,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        at_least_one(levels=levels)
        firing, self.tile = tileable(tile, firing, local=norm != "batch"), tile
        self.updates, self.scales = each("updates", updates, levels), each("scale", scale, levels - 1, "steps between levels")
        widths, hiddens, kernels = (
            each(name, given, levels) for name, given in (("channels", channels), ("hidden", hidden), ("kernel", kernel))
        )
        holding(min(widths), image_channels, mask_channels)
        self.patch, self.downsample = patched(patch, dims), downsample
        self.image_channels, self.mask_channels, self.dims = image_channels, mask_channels, dims
        self.levels = nn.ModuleList(
            Automaton(
                width,
                inner,
                update_rate=update_rate,
                dims=dims,
                pinned=image_channels,
                checkpointing=checkpointing,
                firing=firing,
                arithmetic=arithmetic,
                perception=Perception(width, wide, dims, maps=1, depthwise=True),
                before={"cell": nn.LayerNorm, "batch": BatchNorm}[norm](inner),
            )
            for width, inner, wide in zip(widths, hiddens, kernels, strict=True)
        )

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        images = self.pyramid(cond["image"])
        rules: list[Automaton] = list(self.levels)  # type: ignore[arg-type]
        if not self.training or self.patch is None:
            return Output(answered(rules, self.updates, images, self.mask_channels, self.tile))
        pinned, parts, cells = self.image_channels, Parts(self.patch), images[0].new_zeros(images[0].shape[0], 0, *images[0].shape[2:])
        for rule, updates, image in zip(rules, self.updates, images, strict=True):
            parts.enter(image)
            heritage = parts.inherited(cells[:, : rule.channels - pinned])
            cells = whole(rule, updates, parts.seen(image), heritage)[:, pinned:]
        return Output(cells[:, : self.mask_channels], corner=parts.corner)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The image at each level, coarsest first, sizes rounded up."""
        fitting(image, self.image_channels, self.dims)
        images = [image]
        for scale in reversed(self.scales):
            images.insert(0, self.smaller(images[0], scale))
        shrinkable(image.shape[2:], images[0].shape[2:], len(images))
        return images

    def smaller(self, image: Tensor, scale: int) -> Tensor:
        if self.downsample == "max":
            return {2: F.max_pool2d, 3: F.max_pool3d}[self.dims](image, scale, ceil_mode=True)
        return F.interpolate(image, size=[covered(n, scale) for n in image.shape[2:]], mode="nearest")
