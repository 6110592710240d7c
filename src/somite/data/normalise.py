"""From the scanner's or the camera's numbers to what a network sees. Each maps (n, c, *s) to (n, c, *s), n slices of one case."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError


class Normalise(ABC):
    @abstractmethod
    def __call__(self, image: Tensor, case: str) -> Tensor:
        """`case` names the image in errors."""


class Unit(Normalise):
    """Colour photographs: [0, 1] as read. Anything outside is refused, because it was never meant."""

    def __call__(self, image: Tensor, case: str) -> Tensor:
        low, high = float(image.min()), float(image.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise InputError(
                f"{case}: values run from {low:.4g} to {high:.4g}, but this recipe expects images in [0, 1]; "
                "set --data.preprocess.normalise somite.data.normalise.Percentile (or Window for CT)"
            )
        return image.clamp(0, 1)


class Centred(Normalise):
    """Another normalisation's [0, 1] stretched to [-1, 1], as latent diffusion's encoders want images: of photographs by default."""

    def __init__(self, after: Normalise | None = None) -> None:
        self.after = after or Unit()

    def __call__(self, image: Tensor, case: str) -> Tensor:
        return 2 * self.after(image, case) - 1


class Percentile(Normalise):
    """The `low` and `high` percentiles to 0 and 1, clipped: microscopy and MR, whose brightness means little.

    The percentiles are those of the whole case (all slices, all channels together, so that colours keep their hue), or
    of each slice by itself where `each_slice` is true. A constant image becomes zero.
    """

    def __init__(self, low: float = 0.5, high: float = 99.5, each_slice: bool = False) -> None:
        if not 0 <= low < high <= 100:
            raise InputError(f"percentiles must satisfy 0 <= low < high <= 100, got {low} and {high}")
        self.low, self.high, self.each_slice = low, high, each_slice

    def __call__(self, image: Tensor, case: str) -> Tensor:
        if self.each_slice:
            return torch.stack([self.stretched(one) for one in image])
        return self.stretched(image)

    def stretched(self, image: Tensor) -> Tensor:
        low, high = np.percentile(image.numpy(), (self.low, self.high))
        return (image - low).div_(max(high - low, 1e-12)).clamp_(0, 1).float()


class ZScore(Normalise):
    """Mean 0 and standard deviation 1 of each channel over the whole case."""

    def __call__(self, image: Tensor, case: str) -> Tensor:
        axes = [0, *range(2, image.ndim)]
        mean, std = image.mean(axes, keepdim=True), image.std(axes, keepdim=True)
        return (image - mean) / std.clamp(min=1e-8)


class Window(Normalise):
    """A CT window in Hounsfield units to [0, 1], clipped."""

    def __init__(self, low_hu: float = -160.0, high_hu: float = 240.0) -> None:
        if not low_hu < high_hu:
            raise InputError(f"a window needs low_hu < high_hu, got {low_hu} and {high_hu}")
        self.low, self.high = low_hu, high_hu

    def __call__(self, image: Tensor, case: str) -> Tensor:
        return ((image - self.low) / (self.high - self.low)).clamp(0, 1)


class Standard(Normalise):
    """nnU-Net's normalisation of CT: clip to `low` .. `high`, then subtract `mean` and divide by `std`, numbers of the data set, one a channel."""

    def __init__(self, low: Sequence[float], high: Sequence[float], mean: Sequence[float], std: Sequence[float]) -> None:
        if not len(low) == len(high) == len(mean) == len(std) or any(b <= a for a, b in zip(low, high, strict=True)) or min(std) <= 0:
            raise InputError(
                f"--data.preprocess.normalise: one low < high, one mean and one std > 0 a channel, got {low}, {high}, {mean}, {std}"
            )
        self.low, self.high, self.mean, self.std = low, high, mean, std

    def __call__(self, image: Tensor, case: str) -> Tensor:
        if image.shape[1] != len(self.mean):
            raise InputError(
                f"{case}: {image.shape[1]} channels, but this recipe was planned for {len(self.mean)}; plan again for these data"
            )
        low, high, mean, std = (
            torch.tensor(v, dtype=torch.float32).view(1, -1, *[1] * (image.ndim - 2)) for v in (self.low, self.high, self.mean, self.std)
        )
        return (image.clamp(low, high) - mean) / std.clamp(min=1e-8)
