"""The noise that an exported run begins with, as a function of a seed and of places: any program can make it, the page of `somite web` among them.

It is not the noise of `somite predict`, which comes from torch's generators: other members of the same ensemble.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

STEP = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio


def noise(seed: int, members: int, channels: int, size: Sequence[int]) -> Float32[np.ndarray, "m k h w"]:
    """Standard normal numbers; each depends on the seed (32 bits), its member, channel, row and column, and on no size.

    A chain of murmur3's finalisers (Appleby 2011), one a coordinate, gives two 32-bit numbers, and these one normal number (Box & Muller 1958).
    """
    key = mixed(np.uint32(seed % 2**32), np.arange(members, dtype=np.uint32))
    for count in (channels, *size):
        key = mixed(key[..., None], np.arange(count, dtype=np.uint32))
    first, second = (mixed(key, np.uint32(which)) for which in (0, 1))
    radius = np.sqrt(-2 * np.log((first + 1.0) / 2**32))
    return (radius * np.cos(2 * np.pi * (second / 2**32))).astype(np.float32)


def mixed(key: np.ndarray | np.uint32, at: np.ndarray | np.uint32) -> np.ndarray:
    """Number `at` of the stream that begins at `key`."""
    with np.errstate(over="ignore"):
        x = np.asarray(key + (at + np.uint32(1)) * STEP)
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        return x ^ (x >> np.uint32(16))
