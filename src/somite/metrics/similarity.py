"""How alike two grey images are, such as two probability maps of one case: PSNR, SSIM and MS-SSIM, as torchmetrics computes them.

Images are (h, w) of one shape. `data_range` is the width of the range that values may take, 1 for probabilities. None takes it from the
data, as torchmetrics does where nobody sets it: the reference's own range for PSNR, the larger of the two ranges for SSIM and
MS-SSIM. Then the same error counts more in an image of little contrast, so numbers of different images do not compare.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

SSIM_SIDE = 6  # pixels of the shorter side: the window's reflected border of 5 must lie in the image
MS_SSIM_SIDE = 176  # torchmetrics wants side // 16 > 10, so that the window of 11 fits in at the coarsest of the five scales


def psnr(image: ArrayLike, reference: ArrayLike, data_range: float | None = 1.0) -> float:
    """The peak signal-to-noise ratio in dB, 10 log10(range^2 / mean squared error): higher is more alike, infinite for equal images.

    NaN where the range is taken from a reference of one value, which has none. Raises ValueError for other shapes.
    """
    a, b = _pair(image, reference)
    if np.array_equal(a, b):
        return float("inf")
    width = float(np.ptp(b)) if data_range is None else data_range
    return float(peak_signal_noise_ratio(_tensor(a), _tensor(b), data_range=width)) if width > 0 else float("nan")


def ssim(image: ArrayLike, reference: ArrayLike, data_range: float | None = 1.0) -> float:
    """Structural similarity, at most 1, which equal images have (Wang et al. 2004; Gaussian window of sigma 1.5, K = 0.01, 0.03).

    NaN where the range is taken from two images of one value each. Raises ValueError for other shapes, and sides below SSIM_SIDE.
    """
    return _structural(structural_similarity_index_measure, image, reference, data_range, SSIM_SIDE)


def ms_ssim(image: ArrayLike, reference: ArrayLike, data_range: float | None = 1.0) -> float:
    """Structural similarity over five scales, in [0, 1], 1 for equal images (Wang et al. 2003, with its exponents).

    NaN as `ssim`. Raises ValueError for other shapes, and sides below MS_SSIM_SIDE.
    """
    return _structural(multiscale_structural_similarity_index_measure, image, reference, data_range, MS_SSIM_SIDE)


def _structural(measure, image: ArrayLike, reference: ArrayLike, data_range: float | None, side: int) -> float:  # noqa: ANN001
    a, b = _pair(image, reference)
    if min(a.shape) < side:
        raise ValueError(f"the images are {a.shape[0]} x {a.shape[1]}; want at least {side} pixels a side: leave them out")
    if np.array_equal(a, b):
        return 1.0
    if data_range is None and np.ptp(a) == np.ptp(b) == 0:
        return float("nan")
    return float(measure(_tensor(a), _tensor(b), data_range=data_range))


def _pair(image: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In double precision: variances are differences of mean squares."""
    a, b = np.asarray(image, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"the images have shapes {a.shape} and {b.shape}; want (h, w) of one shape: take slices of volumes")
    return a, b


def _tensor(image: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))[None, None]
