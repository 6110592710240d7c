"""What the cells of an automaton are told of their surroundings: a learned convolution with reflect padding.

Cells are held channels-last, (b, *s, c), as every matrix product wants them.
"""

from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..types import Shape


class Perception(nn.Module):
    """`maps` learned kernels of each channel, `kernel` wide: by default dense (each map reads all channels), p0 and p1 in one.

    depthwise: each map reads its own channel alone, as M3D-NCA's (arXiv 2309.02954) does: a kernel of 7 is affordable then.
    """

    def __init__(self, channels: int, kernel: int = 3, dims: Literal[2, 3] = 2, maps: int = 2, depthwise: bool = False) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"--method.network.kernel {kernel}: a cell is in the middle of what it sees, so give an odd number (3, 5, 7)")
        self.features, self.reach, self.depthwise = maps * channels, kernel // 2, depthwise
        self.groups = channels if depthwise else 1
        made = {2: nn.Conv2d, 3: nn.Conv3d}[dims](channels, self.features, kernel, groups=self.groups)
        self.weight, self.bias = made.weight, made.bias

    def forward(self, u: Tensor) -> Tensor:
        """(b, *s, c) -> (b, *s, features): all cells."""
        return self.convolved(padded(u, self.reach))

    def convolved(self, wide: Tensor, arithmetic: torch.dtype | None = None) -> Tensor:
        """The same of cells with what surrounds them, (b, *(s + 2 reach), c)."""
        weight, bias = (part if arithmetic is None else part.to(arithmetic) for part in (self.weight, self.bias))
        conv = {4: F.conv2d, 5: F.conv3d}[wide.ndim]
        return conv(wide.movedim(-1, 1), weight, bias, groups=self.groups).movedim(1, -1)

    def gathering(self, arithmetic: torch.dtype) -> tuple[Tensor, Tensor]:
        """A dense perception as a matrix (features, kernel^dims c) of gathered neighbourhoods, and its bias."""
        return self.weight.movedim(1, -1).flatten(1).to(arithmetic), self.bias.to(arithmetic)


def padded(u: Tensor, reach: int) -> Tensor:
    """Reflect padding, (b, *s, c) -> (b, *(s + 2 reach), c); an axis shorter than the reach is mirrored again and again."""
    for axis in range(1, u.ndim - 1):
        n = u.shape[axis]
        if reach == 1:  # the usual case, and the fastest
            u = torch.cat([u.narrow(axis, 1, 1), u, u.narrow(axis, n - 2, 1)], axis)
        elif reach:
            way = torch.arange(-reach, n + reach, device=u.device) % (2 * n - 2)
            u = u.index_select(axis, torch.where(way < n, way, 2 * n - 2 - way))
    return u


def neighbourhood(shape: Shape, index: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Flat indices in the padded grid of the cells at `index` (n,) of (b, *s), and the offsets of their neighbours."""
    space, rest = shape[1:], index
    centre, stride, strides = torch.zeros_like(index), 1, []
    for n in reversed(space):
        centre = centre + (rest % n + reach) * stride
        rest = rest // n
        strides.insert(0, stride)
        stride *= n + 2 * reach
    centre = centre + rest * stride
    around = product(range(-reach, reach + 1), repeat=len(space))
    offsets = [sum(d * s for d, s in zip(delta, strides, strict=True)) for delta in around]
    return centre, torch.tensor(offsets, device=index.device)
