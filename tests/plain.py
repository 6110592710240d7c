"""A network for tests of what is put around networks."""

import torch
from torch import nn

from somite.types import Network, Output


class Plain(Network):
    """A convolution of the image and of x; counts how often it is asked, and for what sizes."""

    def __init__(self, dims, size=3):
        super().__init__()
        self.layer = (nn.Conv2d if dims == 2 else nn.Conv3d)(2, 1, size, padding=size // 2)
        self.asked = []

    def encode(self, cond):
        return {"seen": cond["image"] * 2}

    def forward(self, x, t, cond, state=None):
        self.asked.append((len(x), *x.shape[2:]))
        return Output(self.layer(torch.cat([cond["seen"], x], 1)))
