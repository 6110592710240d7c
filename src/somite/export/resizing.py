"""Resizing of maps whose sizes are known only when a program runs: gathers and matrix products, made of the two sizes.

torch's own resizing becomes a Resize of ONNX, whose places other programs round otherwise, so that a pixel of a mask is another; and pooling to
a size has no form there at all. Here the arithmetic is torch's (places and weights in float32), each axis by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Size = Sequence[int]


class FreeSizes(TorchFunctionMode):
    """Within it torch's functions that resize 2D maps to a given size are those of this file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - any function of torch
        return {F.interpolate: interpolated, F.adaptive_avg_pool2d: pooled}.get(func, func)(*args, **(kwargs or {}))


def interpolated(x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", *rest: Any, **named: Any) -> Tensor:  # noqa: ANN401
    ways: dict[str, Callable[[Tensor, Size], Tensor]] = {
        "nearest": nearest,
        "bilinear": antialiased if named.get("antialias") else bilinear,
    }
    if size is None or x.ndim != 4 or mode not in ways or rest or named.get("align_corners"):
        return F.interpolate(x, size, scale_factor, mode, *rest, **named)
    return ways[mode](x, size)


def pooled(x: Tensor, size: Any) -> Tensor:  # noqa: ANN401 - a number, or one an axis
    """The mean of each of `size` blocks, which overlap where they do not divide the map."""
    return F.adaptive_avg_pool2d(x, size) if isinstance(size, int) else product(x, size, blocks)


def nearest(x: Tensor, size: Size) -> Tensor:
    for axis, want in zip((2, 3), size, strict=True):
        have = x.shape[axis]
        place = (torch.arange(want, dtype=torch.float32) * (number(have) / number(want))).long()
        x = x.index_select(axis, place.clamp(max=have - 1))
    return x


def bilinear(x: Tensor, size: Size) -> Tensor:
    for axis, want in zip((3, 2), size[::-1], strict=True):
        have = x.shape[axis]
        place = ((torch.arange(want, dtype=torch.float32) + 0.5) * (number(have) / number(want)) - 0.5).clamp(min=0)
        below = place.long().clamp(max=have - 1)
        share = (place - below).clamp(0, 1)
        share = share if axis == 3 else share[:, None]
        x = x.index_select(axis, below) * (1 - share) + x.index_select(axis, (below + 1).clamp(max=have - 1)) * share
    return x


def antialiased(x: Tensor, size: Size) -> Tensor:
    """Linear, of all pixels that a smaller one covers."""
    return product(x, size, triangles)


def product(x: Tensor, size: Size, weights: Callable[[int, int], Tensor]) -> Tensor:
    rows, columns = (weights(have, want) for have, want in zip(x.shape[2:], size, strict=True))
    return rows @ (x @ columns.T)


def triangles(have: int, want: int) -> Tensor:
    """(want, have): how much of each pixel is in each new one."""
    scale = number(have) / number(want)
    wide = scale.clamp(min=1)
    centre = (torch.arange(want, dtype=torch.float32) + 0.5) * scale
    away = torch.arange(have, dtype=torch.float32) - centre[:, None] + 0.5
    weight = (1 - (away * (1 / wide)).abs()).clamp(min=0)
    return weight / weight.sum(1, keepdim=True)


def blocks(have: int, want: int) -> Tensor:
    """(want, have): one over the size of a block for each pixel in it."""
    number_, place = torch.arange(want)[:, None], torch.arange(have)
    start, stop = number_ * have // want, ((number_ + 1) * have + want - 1) // want
    inside = ((place >= start) & (place < stop)).float()
    return inside / inside.sum(1, keepdim=True)


def number(n: int) -> Tensor:
    """A size, which may only be known later, in the precision in which torch divides sizes."""
    return torch.scalar_tensor(n, dtype=torch.float32)
