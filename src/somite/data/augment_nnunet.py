"""nnU-Net's augmentation, from the probabilities and ranges that nnU-Net v2 documents, by MONAI's transforms.

In its order: rotation and scaling, noise, blur, brightness, contrast, low resolution, gamma of the inverted image, gamma,
mirroring. All draws come from NumPy's generator seeded with the sample's seed.
"""

from math import pi

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..types import Sample
from .augment import NEAREST, Augmentation, spatial

Random = np.random.Generator


class NnUNetAugment(Augmentation):
    """Everything as often and as much as nnU-Net does it; `rate` below 1 makes all of it rarer.

    Rotation by up to 180 degrees in 2D (15 where one side is over 1.5 times the other), 30 about each axis in 3D; volumes
    over three times longer than thick are turned and scaled in their planes alone. Made for z-scored images.
    """

    # Paper: turned before the patch is cut from a larger one; here: the patch itself, its corners filled by reflection,
    # because data are cropped before they are augmented.

    def __init__(self, rate: float = 1.0, mirror: bool = True) -> None:
        self.rate, self.mirror = rate, mirror

    def __call__(self, sample: Sample, seed: int) -> Sample:
        from monai.data.meta_obj import set_track_meta

        set_track_meta(False)
        random = np.random.default_rng(seed)
        maps = spatial(sample)
        thin = thin_axis(tuple(maps["image"].shape[1:]))
        happens = [bool(random.random() < self.rate * p) for p in (0.2, 0.2, 0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3)]
        turn, scale, noise, *rest = happens
        if turn or scale:
            maps = moved(maps, turn, scale, thin, random)
        image = maps["image"]
        if noise:
            deviation = random.uniform(0, 0.1)
            image = image + torch.from_numpy(random.normal(0, deviation, tuple(image.shape)).astype(np.float32))
        changes = (blurred, brightened, contrasted, lambda x, r: coarsened(x, thin, r), inverted_gamma, plain_gamma)
        for change, wanted in zip(changes, rest, strict=True):
            if wanted:
                image = torch.stack([change(channel[None], random)[0] for channel in image])
        axes = [axis for axis in range(1, image.ndim) if self.mirror and random.random() < 0.5 * self.rate]
        return {**sample, **{name: part.flip(axes).contiguous() for name, part in {**maps, "image": image.float()}.items()}}


def thin_axis(space: tuple[int, ...]) -> int | None:
    """The axis of a volume that others are over three times longer than."""
    return int(np.argmin(space)) if len(space) == 3 and max(space) > 3 * min(space) else None


def moved(maps: Sample, turn: bool, scale: bool, thin: int | None, random: Random) -> Sample:
    """Turned and scaled together by one affine map, linear but nearest for the mask and the body."""
    from monai.transforms import Affine

    space = maps["image"].shape[1:]
    if len(space) == 2:
        reach = [15.0 if max(space) > 1.5 * min(space) else 180.0]
    else:
        reach = [30.0] * 3 if thin is None else [180.0 if axis == thin else 0.0 for axis in range(3)]
    angles = [float(random.uniform(-r, r)) * pi / 180 * turn for r in reach]
    factor = float(random.uniform(0.7, 1.4)) if scale else 1.0
    scales = [1.0 if axis == thin else factor for axis in range(len(space))]

    def affine(x: Tensor, mode: str) -> Tensor:
        out = Affine(rotate_params=angles, scale_params=scales, padding_mode="reflection", image_only=True)(x.float(), mode=mode)
        return torch.as_tensor(out)

    moved = {name: affine(part, "nearest" if name in NEAREST else "bilinear") for name, part in maps.items()}
    return {name: part.round().to(maps[name].dtype) if name in NEAREST else part for name, part in moved.items()}


def stretch(low: float, high: float, random: Random) -> float:
    """nnU-Net's factor: below 1 and above 1 equally often."""
    return float(random.uniform(low, 1) if random.random() < 0.5 else random.uniform(1, high))


def blurred(x: Tensor, random: Random) -> Tensor:
    """Gaussian of 0.5 to 1 pixel along each axis, half of the channels."""
    from monai.transforms import GaussianSmooth

    sigmas = random.uniform(0.5, 1, x.ndim - 1).tolist()
    return torch.as_tensor(GaussianSmooth(sigma=sigmas)(x)) if random.random() < 0.5 else x


def brightened(x: Tensor, random: Random) -> Tensor:
    return x * stretch(0.75, 1.25, random)


def contrasted(x: Tensor, random: Random) -> Tensor:
    """Stretched about the mean, within the range of before."""
    mean = x.mean()
    return ((x - mean) * stretch(0.75, 1.25, random) + mean).clamp(x.min(), x.max())


def coarsened(x: Tensor, thin: int | None, random: Random) -> Tensor:
    """Half of the channels sampled at 0.5 to 1 of their resolution (nearest) and enlarged again (linear); the thin axis keeps its own."""
    factor = float(random.uniform(0.5, 1))
    if random.random() >= 0.5:
        return x
    space = x.shape[1:]
    small = [n if axis == thin else max(1, round(n * factor)) for axis, n in enumerate(space)]
    low = F.interpolate(x[None].float(), size=small, mode="nearest-exact")
    return F.interpolate(low, size=space, mode="bilinear" if len(space) == 2 else "trilinear", align_corners=False)[0]


def inverted_gamma(x: Tensor, random: Random) -> Tensor:
    return gamma(x, True, random)


def plain_gamma(x: Tensor, random: Random) -> Tensor:
    return gamma(x, False, random)


def gamma(x: Tensor, invert: bool, random: Random) -> Tensor:
    """Exponent 0.7 to 1.5 over the channel's own range; mean and deviation stay."""
    from monai.transforms import AdjustContrast

    return torch.as_tensor(AdjustContrast(stretch(0.7, 1.5, random), invert_image=invert, retain_stats=True)(x))
