"""Brightness as a plan fixes it for a whole data set."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.normalise import Normalise
from ..errors import InputError


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
