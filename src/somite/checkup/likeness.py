"""Images that look the same though their files are not: resized, brighter, stored anew, turned or mirrored.

A small grey picture of each is kept. Of it a perceptual hash (the signs of its low frequencies, after Zauner, "Implementation and benchmarking
of perceptual image hash functions", 2010) finds candidates among all pairs; that the small pictures correlate decides.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.fft import dctn

SIDES = {2: (64, 64), 3: (16, 16, 16)}  # of the small picture; 4096 numbers either way
LOW = {2: 8, 3: 4}  # frequencies an axis that the hash looks at
BITS = 10  # of 63 that two hashes of candidates may differ in
ALIKE = 0.96  # correlation of two small pictures from which on they are one picture; chosen on real sets (docs/how-to/doctor.md)
FLAT = 0.02  # standard deviation, of a picture's range, below which there is nothing to compare
FEW = 128  # voxels an axis that a volume is thinned to before it is averaged
BLOCK = 1024


def small(image: Float32[np.ndarray, "c *s"]) -> UInt8[np.ndarray, "*t"] | None:
    """Grey, averaged over areas to `SIDES`, from its own darkest to its brightest; None where it is all the same."""
    shape = image.shape[1:]
    thin = tuple(slice(None, None, max(1, n // FEW)) if len(shape) == 3 else slice(None) for n in shape)
    grey = image[(slice(None), *thin)].mean(0, dtype=np.float64)
    for axis, side in enumerate(SIDES[len(shape)]):
        grey = averaged(grey, axis, side)
    low, high = grey.min(), grey.max()
    if not high > low:
        return None
    return np.rint(255 * (grey - low) / (high - low)).astype(np.uint8)


def averaged(values: Float[np.ndarray, "..."], axis: int, side: int) -> Float[np.ndarray, "..."]:
    """Means over `side` equal parts of an axis, whose ends may lie within a pixel."""
    n = values.shape[axis]
    total = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
    ends = np.linspace(0, n, side + 1)
    whole = np.minimum(ends.astype(int), n - 1)
    part = (ends - whole).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    at = total.take(whole, axis) * (1 - part) + total.take(whole + 1, axis) * part
    return np.diff(at, axis=axis) * side / n


def turns(dims: int) -> list[tuple[int, bool]]:
    """Quarter turns and mirroring that a copy may have gone through: of flat images all eight; volumes have an orientation of their own."""
    return [(turn, mirror) for mirror in (False, True) for turn in range(4)] if dims == 2 else [(0, False)]


def turned(pictures: np.ndarray, turn: int, mirror: bool) -> np.ndarray:
    """(n, *t), each."""
    return np.rot90(pictures[:, ::-1] if mirror else pictures, turn, (1, 2))


def hashes(pictures: UInt8[np.ndarray, "n *t"]) -> Float32[np.ndarray, "n b"]:
    """One bit, 1 or -1, for each low frequency but the mean: whether it is above the median of them."""
    dims = pictures.ndim - 1
    waves = dctn(pictures.astype(np.float32), axes=range(1, dims + 1), norm="ortho")
    low = np.asarray(waves)[(slice(None), *[slice(LOW[dims])] * dims)].reshape(len(pictures), -1)[:, 1:]
    return np.where(low > np.median(low, axis=1, keepdims=True), np.float32(1), np.float32(-1))


def standardised(pictures: np.ndarray) -> Float32[np.ndarray, "n d"]:
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def pairs(pictures: Sequence[UInt8[np.ndarray, "*t"]]) -> list[tuple[int, int, float]]:
    """Which two are one picture (first index below second), and how well they correlate. All of one number of axes."""
    if len(pictures) < 2:
        return []
    stack = np.stack(pictures)
    rows = np.flatnonzero(stack.reshape(len(stack), -1).std(1) > FLAT * 255)
    stack = stack[rows]
    own, look = hashes(stack), standardised(stack)
    found: dict[tuple[int, int], float] = {}
    for turn, mirror in turns(stack.ndim - 1):
        other = np.ascontiguousarray(turned(stack, turn, mirror))
        for i, j in candidates(own, hashes(other)):
            likeness = np.einsum("nd,nd->n", look[i], standardised(other[j]))
            for a, b, r in zip(i, j, likeness, strict=True):
                pair = int(rows[a]), int(rows[b])
                if r >= ALIKE and r > found.get(pair, 0):
                    found[pair] = float(r)
    return [(a, b, r) for (a, b), r in sorted(found.items())]


def candidates(one: Float32[np.ndarray, "n b"], other: Float32[np.ndarray, "n b"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices i < j of rows that differ in few bits, a block at a time."""
    for start in range(0, len(one), BLOCK):
        agree = one[start : start + BLOCK] @ other[start:].T
        i, j = np.nonzero(agree >= one.shape[1] - 2 * BITS)
        keep = i < j
        for begin in range(0, int(keep.sum()), BLOCK):
            part = slice(begin, begin + BLOCK)
            yield i[keep][part] + start, j[keep][part] + start
