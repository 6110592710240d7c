"""The whole way of a run, from an image as it was read to its mask, as one module that can be written down as a program of any size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.preprocess import LUMINANCE
from ..diffusion.methods import Diffusion, FeedForward
from ..diffusion.samplers import Step
from ..pipeline import Run
from .brightness import normalised
from .fusing import decided, fused, spread
from .resizing import FreeSizes, antialiased, bilinear


class Graph(nn.Module):
    """image (b, c, h, w), as `somite predict` reads files: c is 1 or 3 where the run takes 1 or 3 channels, else the run's own number.

    noise (b, m, k, H, W): of m members, where the method begins with noise; k are the codec's channels, and H x W the size at which the
    network looks (`looked`). grid (H, W): says that size where there is no noise and it follows from the image; its numbers are not read.

    Returns mask (b, h, w) uint8, probability and spread (b, maps, h, w). The run must be one that `admit` lets through.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        assert isinstance(run.method, Diffusion | FeedForward)
        self.method, self.preprocess, self.fusion = run.method, run.data.preprocess, run.recipe.task.fusion  # type: ignore[attr-defined]

    def forward(self, image: Tensor, noise: Tensor | None = None, grid: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        own = image.shape[2:]
        with FreeSizes():
            size = self.looked(own, noise if grid is None else grid)
            maps = self.sampled(self.seen(image, size), noise, size)
            if self.preprocess.size is not None:
                maps = bilinear(maps, own)
        members = maps.unflatten(0, (image.shape[0], 1 if noise is None else noise.shape[1]))
        probability = fused(self.fusion, members)
        return decided(self.fusion, probability), probability, spread(members)

    def looked(self, own: Sequence[int], told: Tensor | None) -> Sequence[int]:
        """At what size the network looks."""
        size = self.preprocess.size
        if size is None:
            return own
        if isinstance(size, int):
            assert told is not None
            return told.shape[-2:]
        return size

    def seen(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """(b, c, h, w) -> (b, channels, H, W): what `Preprocess.image` gives."""
        image = coloured(image, self.preprocess.channels)
        if self.preprocess.size is not None:
            image = antialiased(image, size)
        return normalised(self.preprocess.normalise, image)

    def sampled(self, seen: Tensor, noise: Tensor | None, size: Sequence[int]) -> Tensor:
        """(b m, maps, H, W): probabilities of each member."""
        method = self.method
        known = method.network.encode({"image": seen})
        if isinstance(method, FeedForward):
            shape = (seen.shape[0], 1, *size)
            pred, _, _ = method.predict(known, shape, seen.device)
            return method.readout(Step(-1, pred.x0, pred), method.codec, shape)
        assert noise is not None
        count, members = noise.shape[:2]
        known = {name: part[:, None].expand(-1, members, *part.shape[1:]).flatten(0, 1) for name, part in known.items()}
        *_, last = method.walk(noise.flatten(0, 1), known)
        return method.readout(last, method.codec, (count * members, 1, *size))


def coloured(image: Tensor, channels: int) -> Tensor:
    """Grey to colour and colour to grey, as `Preprocess.coloured` does, whichever of the two an image turns out to be."""
    have = image.shape[1]
    if channels == 3:
        return image.index_select(1, torch.arange(3).clamp(max=have - 1))
    if channels == 1:
        weights = torch.tensor(LUMINANCE).index_select(0, torch.arange(have))
        return (image * (weights / weights.sum())[:, None, None]).sum(1, keepdim=True)
    return image
