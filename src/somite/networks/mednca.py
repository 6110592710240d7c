"""Med-NCA: feed-forward segmentation by two cellular automata (Kalkhof et al. 2023, arXiv 2302.03473).

A cell's channels: [image (pinned) | logits | free ...]. The first automaton runs on a quarter of the resolution, its cells
are enlarged, the image is replaced by the full-size one, and a second automaton refines them.

# Paper: in training the second automaton sees one random patch of each image; here: the whole image, because
# checkpointing keeps the memory low and no pixel goes to waste.
"""

from typing import Literal

from torch import nn
from torch.nn import functional as F

from ..nn.automaton import Automaton, Firing, at_least_one
from ..nn.levels import answered, fitting, holding
from ..nn.padding import covered
from ..nn.tiled import tileable
from ..types import Cond, Maps, Network, Output, State, Timesteps


class MedNCA(Network):
    """Feed-forward: x and t are ignored. Med-NCA's tutorial network has 32 channels, 128 hidden, 16 updates (70,016 parameters).

    firing: which cells act at inference (`Stochastic`, `Expected`); training is always stochastic.
    arithmetic: precision of the matrix products at inference; "bfloat16" is faster where the machine has instructions for it
    (environment.has_bfloat16) and slower elsewhere. Cells stay in float32.
    tile: at inference, cells of a window along an axis, for images of any size: to the bit what one window gives (nn.tiled). Cells then
    act by `Hashed`, or `Expected`. None: the whole image at once.
    """

    def __init__(
        self,
        channels: int = 32,
        hidden: int = 128,
        updates: int = 16,
        scale: int = 4,
        image_channels: int = 1,
        mask_channels: int = 1,
        update_rate: float = 0.5,
        dims: Literal[2, 3] = 2,
        checkpointing: bool = True,
        firing: Firing | None = None,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        at_least_one(channels=channels, hidden=hidden, updates=updates, scale=scale)
        firing, self.tile = tileable(tile, firing, local=True), tile
        holding(channels, image_channels, mask_channels)
        self.channels, self.updates, self.scale = channels, updates, scale
        self.image_channels, self.mask_channels, self.dims = image_channels, mask_channels, dims
        self.levels = nn.ModuleList(
            Automaton(
                channels,
                hidden,
                update_rate=update_rate,
                dims=dims,
                pinned=image_channels,
                checkpointing=checkpointing,
                firing=firing,
                arithmetic=arithmetic,
            )
            for _ in range(2)
        )

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        fitting(image, self.image_channels, self.dims)
        size = [covered(n, self.scale) for n in image.shape[2:]]
        small = F.interpolate(image, size=size, mode={2: "bilinear", 3: "trilinear"}[self.dims], align_corners=False)
        return Output(answered(list(self.levels), [self.updates] * 2, [small, image], self.mask_channels, self.tile))  # type: ignore[arg-type]
