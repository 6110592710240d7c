"""What a case looks like: image, truth, mask, probability and spread, each as a small picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ...data.record import Record
from ...predict.ensemble import Result
from ...wording import count
from ..view import Key, Panel, Pictures
from .view import facts

SIDE = 256  # pixels of a picture's longer side
WHITE, CONTOUR = (255, 255, 255), (255, 196, 37)
CLASSES = [WHITE, (0, 114, 178), (213, 94, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (230, 159, 0), (240, 228, 66)]
PROBABILITY, SPREAD = (4, 52, 104), (160, 52, 0)  # the dark ends of scales that begin with white
LEVELS = 32  # of a scale: enough for the eye, and PNG packs them well


def pictures(results: Sequence[Result], rows: Sequence[Sequence[dict[str, Any]]], axis: int) -> Pictures:
    """Each case's panels and facts; of a volume, one slice across `axis`."""
    most = max(math.ceil(10 * max(float(result.spread[0].max()) for result in results)) / 10, 0.1)
    looks = [plane(result.record, result, axis) for result in results]
    told = [
        facts(list(some)) + ([f"slice {look.index + 1} of {result.record.shape[look.axis]}"] if look.index is not None else [])
        for result, some, look in zip(results, rows, looks, strict=True)
    ]
    drawn = [panels(result.record, result, look, most) for result, look in zip(results, looks, strict=True)]
    note = "Of each volume, the slice with most truth. " if looks[0].index is not None else ""
    return Pictures(drawn, told, keys(results[0], most), f"{note}Images are stretched between their 0.5th and 99.5th percentiles.")


def keys(result: Result, most: float) -> list[Key]:
    told = [Key("#ffc425", "outline of the truth")]
    if len(result.probability) > 1:
        told.append(Key("", "truth and mask: one colour a label"))
    else:
        told += [Key("#0072b2", "truth; mask that agrees with it"), Key("#d55e00", "mask too much"), Key("#56b4e9", "missed")]
    told.append(Key("#043468", "probability", ("0", "1")))
    if result.count > 1:
        told.append(Key("#a03400", f"standard deviation over {count(result.count, 'member')}", ("spread 0", f"{most:.1f}")))
    return told


@dataclass(frozen=True)
class Plane:
    """The plane that is shown: of a volume, the slice across `axis` with most truth, or most prediction if there is none."""

    axis: int
    index: int | None
    size: tuple[int, int]  # (width, height) of the pictures

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """(*s) -> (h, w); slices are turned so that the first axis runs to the right and the second upwards."""
        return array if self.index is None else np.rot90(array.take(self.index, self.axis))


def plane(record: Record, result: Result, axis: int) -> Plane:
    truth = record.truth
    index, sides, steps = None, list(record.shape), list(record.spacing or (1.0,) * len(record.shape))
    if len(sides) == 3:
        shown = truth > 0 if truth.any() else foreground(result.probability)
        index = int(shown.sum(tuple(a for a in range(3) if a != axis)).argmax())
        sides, steps = ([part[a] for a in range(3) if a != axis][::-1] for part in (sides, steps))
    height, width = (n * step for n, step in zip(sides, steps, strict=True))
    scale = SIDE / max(height, width)
    return Plane(axis, index, (max(1, round(width * scale)), max(1, round(height * scale))))


def foreground(probability: np.ndarray) -> np.ndarray:
    """(k, *s) -> (*s): the probability of any label."""
    return probability[0] if len(probability) == 1 else 1 - probability[0]


def panels(record: Record, result: Result, look: Plane, most: float) -> list[Panel]:
    """The pictures of a case; `most` is the spread that is drawn darkest. One member has none."""
    truth = look(record.truth)
    several = len(result.probability) > 1
    mask = look(result.mask) if several else agreement(look(result.mask) > 0, truth > 0)
    shown = [
        Panel("image, truth outlined", photograph(record, look, truth > 0), photograph=True),
        Panel("truth", classes(truth, look.size), bits=3),
        Panel("mask", classes(mask, look.size), bits=3),
        Panel("probability", scale(look(foreground(result.probability)), PROBABILITY, look.size)),
    ]
    if result.count > 1:
        shown.append(Panel("spread", scale(look(result.spread[0]) / most, SPREAD, look.size)))
    return shown


def agreement(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where both are, 2 where only the mask is, 3 where only the truth is."""
    return np.select([mask & truth, mask, truth], [1, 2, 3], 0).astype(np.uint8)


def photograph(record: Record, look: Plane, truth: np.ndarray) -> Image.Image:
    """The image between its 0.5th and 99.5th percentiles with the truth's outline; one channel or three."""
    channels = [look(channel) for channel in (record.image[:3] if len(record.image) >= 3 and look.index is None else record.image[:1])]
    low, high = np.percentile(channels, (0.5, 99.5))
    stretched = np.clip((np.stack(channels, -1) - low) / max(high - low, 1e-8), 0, 1)
    pixels = np.rint(255 * np.broadcast_to(stretched, (*stretched.shape[:2], 3))).astype(np.uint8)
    picture = Image.fromarray(pixels).resize(look.size, Image.Resampling.BICUBIC)
    large = np.asarray(Image.fromarray(truth).resize(look.size, Image.Resampling.NEAREST))
    edge = large & np.logical_not(ndimage.binary_erosion(large, border_value=1))
    drawn = np.where(edge[..., None], np.array(CONTOUR, np.uint8), np.asarray(picture))
    return Image.fromarray(drawn)


def classes(labels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Label indices in colours; beyond the palette they come round again."""
    wrapped = np.where(labels == 0, 0, 1 + (labels.astype(int) - 1) % (len(CLASSES) - 1)).astype(np.uint8)
    return paletted(wrapped, CLASSES).resize(size, Image.Resampling.NEAREST)


def scale(values: np.ndarray, dark: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    """[0, 1] from white to `dark`."""
    wide = Image.fromarray(np.clip(values, 0, 1).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    levels = np.rint(np.asarray(wide) * (LEVELS - 1)).astype(np.uint8)
    ramp = np.linspace(WHITE, dark, LEVELS).round().astype(int)
    return paletted(levels, [tuple(colour) for colour in ramp.tolist()])


def paletted(indices: np.ndarray, palette: list) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(indices)).convert("L")
    picture.putpalette([value for colour in palette for value in colour])  # makes it an image of palette indices
    return picture
