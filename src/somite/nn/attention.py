"""Attention blocks shared by networks."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        gate = self.gate(pooled.amax(2), pooled.mean(2))
        x = x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))
        return x * self.place(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)).sigmoid()

    def gate(self, most: Tensor, mean: Tensor) -> Tensor:
        """(b, c) each -> (b, c): how much of each channel counts."""
        return (self.channel(most) + self.channel(mean)).sigmoid()


class TokenAttention(nn.Module, ABC):
    """x (b, c, *s) + out(mixed(q, k, v)), every cell a token: q, k, v are 1x1 convolutions of the normalised x, cut into heads."""

    def __init__(self, channels: int, dims: Literal[2, 3], groups: int = 8, heads: int = 4) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = conv(channels, 3 * channels, 1, bias=False)
        self.out = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)
        return x + self.out(self.mixed(q, k, v).transpose(2, 3).reshape(x.shape))

    @abstractmethod
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, heads, n, d) each -> (b, heads, n, d)."""


class SoftmaxAttention(TokenAttention):
    """softmax(q k^T / sqrt(d)) v, of a cost that grows with n^2 (Vaswani et al. 2017)."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class LinearAttention(TokenAttention):
    """softmax_d(q) / sqrt(d) (softmax_n(k)^T v), of a cost that grows with n (Shen et al. 2021, arXiv 1812.01243)."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = q.softmax(3) * q.shape[3] ** -0.5, k.softmax(2)
        return q @ (k.transpose(2, 3) @ v)


def attention_for(channels: int, tokens: int, dims: Literal[2, 3], groups: int = 8) -> TokenAttention:
    """Linear where there are more tokens than channels, else softmax."""
    return (LinearAttention if tokens > channels else SoftmaxAttention)(channels, dims, groups)
