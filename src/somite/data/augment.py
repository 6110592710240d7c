"""Augmentation of a whole sample, by MONAI's transforms, a function of the sample and a seed."""

from abc import ABC, abstractmethod
from math import pi
from typing import Any

from ..types import Sample

NEAREST = frozenset({"mask", "body"})  # maps of what a voxel is: they are moved to the nearest voxel, all others linearly


class Augmentation(ABC):
    """What training changes in a sample, after preprocessing and cropping; answers never see it."""

    @abstractmethod
    def __call__(self, sample: Sample, seed: int) -> Sample:
        """{"image": (c, *s), "mask": (1, *s) if there is one, further maps (k, *s)} -> the same shapes; what happens is a function of `seed`.

        What moves the image moves every map with it, the mask and the body to the nearest pixel and others linearly; vectors stay as
        they are.
        """


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
        self._pipelines: dict[tuple[int, bool, tuple[str, ...]], Any] = {}

    def __call__(self, sample: Sample, seed: int) -> Sample:
        image, maps = sample["image"], spatial(sample)
        kind = (image.ndim - 1, image.shape[1] == image.shape[2], tuple(maps))
        if kind not in self._pipelines:
            self._pipelines[kind] = self.pipeline(*kind)
        pipeline = self._pipelines[kind]
        pipeline.set_random_state(seed=seed % 2**32)
        out = pipeline({name: part.float() for name, part in maps.items()})
        whole = {name: out[name].round() if name in NEAREST else out[name] for name in maps}
        return {**sample, **{name: part.to(sample[name].dtype).contiguous() for name, part in whole.items()}}

    def pipeline(self, dims: int, square: bool, maps: tuple[str, ...]) -> Any:  # noqa: ANN401 - monai.transforms.Compose
        """MONAI is imported here: it takes seconds, and only training needs it."""
        from monai import transforms as mt
        from monai.data.meta_obj import set_track_meta

        set_track_meta(False)
        return mt.Compose([*self.moves(mt, dims, square, maps), *self.tones(mt)])

    def moves(self, mt: Any, dims: int, square: bool, maps: tuple[str, ...]) -> list[Any]:  # noqa: ANN401 - monai.transforms
        """What moves all maps together."""
        both, rate = list(maps), self.rate
        modes = {"mode": ["nearest" if name in NEAREST else "bilinear" for name in maps], "padding_mode": "reflection"}
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


def spatial(sample: Sample) -> Sample:
    """The entries that lie over the image: it, its mask, further maps; not vectors."""
    return {name: part for name, part in sample.items() if part.shape[1:] == sample["image"].shape[1:]}
