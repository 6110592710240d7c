"""3x3 convolutions in 2D with a fifth of the multiplications: Winograd's way, F(6x6, 3x3). For inference on CPUs, in float32.

Lavin & Gray 2016 (arXiv 1509.09308), as torch's builds for Linux and macOS have it from NNPACK. torch itself asks NNPACK for large
batches only, and where oneDNN is off. Single layers on AVX2: 2 to 3 times as fast as direct convolution from 128 channels and 64 x 64
pixels on (whole networks: docs/results/sdseg-cpu.md). Results differ from exact ones by about 2e-5 of the largest value, those of direct convolution by 1e-6.
"""

from typing import Any

import torch
from torch import Tensor

CHANNELS, SIZE = 64, 32  # below them, transforming kernels and images costs what is saved
TILE = 6  # outputs of one tile, along an axis
WORKSPACE = 2**24  # bytes of transformed tiles; larger images are done in strips of rows. At 2**28 a 256 x 256 decoder peaks 180 MiB higher


def available() -> bool:
    """Has this build of torch NNPACK, and does the processor suffice? NNPACK wants to be asked before its first use."""
    return hasattr(torch, "_nnpack_spatial_convolution") and torch._nnpack_available()


def fits(x: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> bool:  # noqa: ANN401
    """Whether this convolution is one that `winograd` computes, and faster. A rule and no trial: results must not depend on the hour."""
    return (
        x.ndim == 4
        and min(x.shape[2:]) >= SIZE
        and min(weight.shape[:2]) >= CHANNELS
        and same(weight, stride, padding, dilation, groups)
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and available()
    )


def same(weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:  # noqa: ANN401 - a number, or one an axis
    """Whether a 3x3 convolution gives as many pixels as it gets, with nothing special about it."""
    ones = stride in (1, (1, 1)) and padding in (1, (1, 1)) and dilation in (1, (1, 1)) and groups == 1
    return ones and weight.shape[2:] == (3, 3)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (b, c, h, w), zero-padded by 1, under weight (o, c, 3, 3) -> (b, o, h, w). No gradient.

    Image by image, so that none depends on the others: NNPACK computes batches otherwise. A strip sees a row more on either side.
    """
    (b, c, h, w), o = x.shape, weight.shape[0]
    tiles = -(-w // TILE)
    rows = TILE * max(WORKSPACE // ((c + o) * tiles * 8 * 8 * 4), 1)  # a tile is 8 x 8 floats
    if b == 1 and rows >= h:
        return torch._nnpack_spatial_convolution(x, weight, bias, 1)
    out = x.new_empty(b, o, h, w)
    for image, result in zip(x.split(1), out.split(1), strict=True):
        for top in range(0, h, rows):
            first, last = max(top - 1, 0), min(top + rows, h)
            strip = torch._nnpack_spatial_convolution(image[:, :, first : last + 1], weight, bias, 1)
            result[:, :, top:last] = strip[:, :, top - first : last - first]
    return out
