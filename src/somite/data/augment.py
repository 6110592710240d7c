"""Augmentation of an image and its mask together, by MONAI's transforms, a function of the sample and a seed."""

from abc import ABC, abstractmethod
from math import pi
from typing import Any

from torch import Tensor


class Augmentation(ABC):
    @abstractmethod
    def __call__(self, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """(c, *s) and (1, *s) -> the same shapes; what happens is a function of `seed`."""


class Augment(Augmentation):
    """Each kind of change happens with probability `rate`; zero switches a kind off.

    flip: mirror each axis, and turn by quarters where the first two are equally long. rotate_degrees, scale: an affine map, scale 0.1 meaning 0.9 to 1.1.
    elastic: displacement of a smooth random grid in pixels. brightness, contrast: shift and scale of the whole image;
    colour: the same for each channel by itself; gamma: exponent between 1 / (1 + gamma) and 1 + gamma; noise: standard deviation.
    Images are expected in [0, 1] or standardised; the mask is resampled to the nearest pixel.
    """

    def __init__(
        self,
        flip: bool = True,
        rotate_degrees: float = 15.0,
        scale: float = 0.1,
        elastic: float = 0.0,
        brightness: float = 0.1,
        contrast: float = 0.1,
        colour: float = 0.0,
        gamma: float = 0.0,
        noise: float = 0.0,
        rate: float = 0.5,
    ) -> None:
        self.flip, self.rotate_degrees, self.scale, self.elastic = flip, rotate_degrees, scale, elastic
        self.brightness, self.contrast, self.colour = brightness, contrast, colour
        self.gamma, self.noise, self.rate = gamma, noise, rate
        self._pipelines: dict[tuple[int, bool], Any] = {}

    def __call__(self, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """(c, *s) and (1, *s) -> the same shapes."""
        kind = (image.ndim - 1, image.shape[1] == image.shape[2])
        if kind not in self._pipelines:
            self._pipelines[kind] = self.pipeline(*kind)
        pipeline = self._pipelines[kind]
        pipeline.set_random_state(seed=seed % 2**32)
        out = pipeline({"image": image, "mask": mask.float()})
        return out["image"].contiguous(), out["mask"].round().to(mask.dtype).contiguous()

    def pipeline(self, dims: int, square: bool) -> Any:  # noqa: ANN401 - monai.transforms.Compose
        """MONAI is imported here: it takes seconds, and only training needs it."""
        from monai import transforms as mt
        from monai.data.meta_obj import set_track_meta

        set_track_meta(False)
        return mt.Compose([*self.moves(mt, dims, square), *self.tones(mt)])

    def moves(self, mt: Any, dims: int, square: bool) -> list[Any]:  # noqa: ANN401 - monai.transforms
        """What moves image and mask together."""
        both, rate = ["image", "mask"], self.rate
        modes = {"mode": ["bilinear", "nearest"], "padding_mode": "reflection"}
        parts = [mt.RandFlipd(both, prob=rate, spatial_axis=axis) for axis in range(dims) if self.flip]
        if self.flip and square:
            parts.append(mt.RandRotate90d(both, prob=rate))
        if self.rotate_degrees or self.scale:
            angles = [self.rotate_degrees * pi / 180] * (1 if dims == 2 else 3)
            parts.append(mt.RandAffined(both, prob=rate, rotate_range=angles, scale_range=[self.scale] * dims, **modes))
        if self.elastic and dims == 2:
            parts.append(mt.Rand2DElasticd(both, spacing=(24, 24), magnitude_range=(0, self.elastic), prob=rate, **modes))
        if self.elastic and dims == 3:
            parts.append(mt.Rand3DElasticd(both, sigma_range=(5, 8), magnitude_range=(0, 100 * self.elastic), prob=rate, **modes))
        return parts

    def tones(self, mt: Any) -> list[Any]:  # noqa: ANN401
        """What changes the image alone."""
        rate = self.rate
        kinds = [
            (self.contrast, lambda: [mt.RandScaleIntensityd("image", factors=self.contrast, prob=rate)]),
            (self.brightness, lambda: [mt.RandShiftIntensityd("image", offsets=self.brightness, prob=rate)]),
            (
                self.colour,
                lambda: [
                    mt.RandScaleIntensityd("image", factors=self.colour, prob=rate, channel_wise=True),
                    mt.RandShiftIntensityd("image", offsets=self.colour, prob=rate, channel_wise=True),
                ],
            ),
            (self.gamma, lambda: [mt.RandAdjustContrastd("image", prob=rate, gamma=(1 / (1 + self.gamma), 1 + self.gamma))]),
            (self.noise, lambda: [mt.RandGaussianNoised("image", prob=rate, std=self.noise)]),
        ]
        return [part for amount, make in kinds if amount for part in make()]
