"""What a case looks like: image, truth, mask, probability and spread, each as a small picture."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ...data.record import Record
from ...predict.ensemble import Result
from ...wording import count
from ..view import Key, Panel, Pictures
from .brightness import Brightness, brightness, hounsfield
from .planes import Plane, planes
from .view import facts

FLAT = "Images are stretched between their 0.5th and 99.5th percentiles."
OF_VOLUMES = "Of each volume three planes, each the slice with most truth, or with most of the mask where there is no truth."
HOUNSFIELD = (
    "CT is drawn in the narrowest of four windows (brain in heads, soft tissue, lung, bone) that shows nine tenths of what the truth covers, or "
    "the one that shows most of it."
)
SIDES = "R: the patient's right, A: the front; the head is up"
WHITE, CONTOUR = (255, 255, 255), (255, 196, 37)
CLASSES = [WHITE, (0, 114, 178), (213, 94, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (230, 159, 0), (240, 228, 66)]
PROBABILITY, SPREAD = (4, 52, 104), (160, 52, 0)  # the dark ends of scales that begin with white
LEVELS = 32  # of a scale: enough for the eye, and PNG packs them well


def pictures(results: Sequence[Result], rows: Sequence[Sequence[dict[str, Any]]]) -> Pictures:
    """Each case's panels and facts; of a volume, three planes."""
    most = max(math.ceil(10 * max(float(result.spread[0].max()) for result in results)) / 10, 0.1)
    looks = [Look(result, most) for result in results]
    told = [facts(list(some)) + look.facts for some, look in zip(rows, looks, strict=True)]
    drawn = [[panel for plane in look.planes for panel in look.panels(plane)] for look in looks]
    volumes = [look for look in looks if look.volume]
    names = sorted({look.bright.name for look in volumes if look.bright})
    legend = keys(results[0], most) + ([Key("", f"brightness: {'; '.join(names)}"), Key("", SIDES)] if volumes else [])
    note = f"{OF_VOLUMES} " if volumes else FLAT
    if any(look.hounsfield for look in volumes):
        note += HOUNSFIELD
    return Pictures(drawn, told, legend, note.strip(), looks[0].columns if volumes else None)


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


class Look:
    """How a case is shown; `most` is the spread that is drawn darkest. One member has none."""

    def __init__(self, result: Result, most: float) -> None:
        record = result.record
        marked = record.truth > 0 if record.truth.any() else result.mask > 0
        self.result, self.most, self.volume = result, most, len(record.shape) == 3
        self.planes = planes(record, marked if marked.any() else foreground(result.probability))
        self.bright = brightness(record, marked) if self.volume else None
        self.hounsfield = self.volume and hounsfield(record)
        self.columns = 4 + (result.count > 1)

    @property
    def facts(self) -> list[str]:
        """Which slices are shown, and of CT in which window."""
        if not self.volume:
            return []
        slices = ", ".join(f"{plane.name} {plane.number} of {plane.depth}" for plane in self.planes)
        return [f"slices {slices}", *([self.bright.name] if self.hounsfield and self.bright else [])]

    def panels(self, plane: Plane) -> list[Panel]:
        result, record = self.result, self.result.record
        truth = plane(record.truth)
        several = len(result.probability) > 1
        mask = plane(result.mask) if several else agreement(plane(result.mask) > 0, truth > 0)
        prefix = f"{plane.name}: " if plane.name else ""
        shown = [
            Panel(f"{prefix}image, truth outlined", photograph(record, plane, self.bright), photograph=True),
            Panel(f"{prefix}truth", plane.framed(classes(truth, plane.size)), bits=3),
            Panel(f"{prefix}mask", plane.framed(classes(mask, plane.size)), bits=3),
            Panel(f"{prefix}probability", plane.framed(scale(plane(foreground(result.probability)), PROBABILITY, plane.size))),
        ]
        if result.count > 1:
            shown.append(Panel(f"{prefix}spread", plane.framed(scale(plane(result.spread[0]) / self.most, SPREAD, plane.size))))
        return shown


def foreground(probability: np.ndarray) -> np.ndarray:
    """(k, *s) -> (*s): the probability of any label."""
    return probability[0] if len(probability) == 1 else 1 - probability[0]


def agreement(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where both are, 2 where only the mask is, 3 where only the truth is."""
    return np.select([mask & truth, mask, truth], [1, 2, 3], 0).astype(np.uint8)


def photograph(record: Record, plane: Plane, bright: Brightness | None) -> Image.Image:
    """The image with the truth's outline: one channel or three, and of a volume one. bright: None, stretched by itself."""
    image = record.image
    if bright is not None:
        shades = bright(plane(image[0]))[..., None]
    else:
        channels = np.stack(list(image[:3] if len(image) >= 3 else image[:1]), -1)
        shades = Brightness("", *np.percentile(channels, (0.5, 99.5)))(channels)
    return plane.lettered(plane.framed(outlined(shades, plane(record.truth) > 0, plane.size)))


def outlined(shades: np.ndarray, truth: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """(h, w, 1 or 3) in [0, 1] as a picture, with the outline of (h, w) bool."""
    pixels = np.rint(255 * np.broadcast_to(shades, (*shades.shape[:2], 3))).astype(np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    large = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
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
