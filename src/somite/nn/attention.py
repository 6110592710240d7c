"""Attention blocks shared by networks."""

from typing import Literal

import torch
from torch import Tensor, nn


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al. 2018): first which channels, then which places.

    x (b, c, *s) -> (b, c, *s). Channel gate: max- and mean-pooled channels through one perceptron c -> c/reduction -> c,
    added, sigmoid. Place gate: max and mean over channels through one 7^dims convolution without bias, sigmoid.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7, dims: Literal[2, 3] = 2) -> None:
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.channel = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.place = conv(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.flatten(2)  # (b, c, n)
        gate = (self.channel(pooled.amax(2)) + self.channel(pooled.mean(2))).sigmoid()
        x = x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))
        return x * self.place(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)).sigmoid()
