"""What a case looks like: image, truth, mask, probability and spread, each as a small picture inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from ..data.record import Record
from ..predict.ensemble import Result

SIDE = 256  # pixels of a picture's longer side
WHITE, CONTOUR = (255, 255, 255), (255, 196, 37)
CLASSES = [WHITE, (0, 114, 178), (213, 94, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (230, 159, 0), (240, 228, 66)]
PROBABILITY, SPREAD = (4, 52, 104), (160, 52, 0)  # the dark ends of scales that begin with white
LEVELS = 32  # of a scale: enough for the eye, and PNG packs them well


@dataclass(frozen=True)
class Panel:
    name: str
    uri: str


@dataclass(frozen=True)
class View:
    """The plane that is shown: of a volume, the slice across `axis` with most truth, or most prediction if there is none."""

    axis: int
    index: int | None
    size: tuple[int, int]  # (width, height) of the pictures

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """(*s) -> (h, w); slices are turned so that the first axis runs to the right and the second upwards."""
        return array if self.index is None else np.rot90(array.take(self.index, self.axis))


def view(record: Record, result: Result, axis: int) -> View:
    truth = record.truth
    index, sides, steps = None, list(record.shape), list(record.spacing or (1.0,) * len(record.shape))
    if len(sides) == 3:
        shown = truth > 0 if truth.any() else foreground(result.probability)
        index = int(shown.sum(tuple(a for a in range(3) if a != axis)).argmax())
        sides, steps = ([part[a] for a in range(3) if a != axis][::-1] for part in (sides, steps))
    height, width = (n * step for n, step in zip(sides, steps, strict=True))
    scale = SIDE / max(height, width)
    return View(axis, index, (max(1, round(width * scale)), max(1, round(height * scale))))


def foreground(probability: np.ndarray) -> np.ndarray:
    """(k, *s) -> (*s): the probability of any label."""
    return probability[0] if len(probability) == 1 else 1 - probability[0]


def panels(record: Record, result: Result, look: View, most: float) -> list[Panel]:
    """The pictures of a case; `most` is the spread that is drawn darkest. One member has none."""
    truth = look(record.truth)
    several = len(result.probability) > 1
    shown = [
        Panel("image, truth outlined", photograph(record, look, truth > 0)),
        Panel("truth", classes(truth, look.size)),
        Panel("mask", classes(look(result.mask) if several else agreement(look(result.mask) > 0, truth > 0), look.size)),
        Panel("probability", scale(look(foreground(result.probability)), PROBABILITY, look.size)),
    ]
    if len(result.members) > 1:
        shown.append(Panel("spread", scale(look(result.spread[0]) / most, SPREAD, look.size)))
    return shown


def agreement(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where both are, 2 where only the mask is, 3 where only the truth is."""
    return np.select([mask & truth, mask, truth], [1, 2, 3], 0).astype(np.uint8)


def photograph(record: Record, look: View, truth: np.ndarray) -> str:
    """The image between its 0.5th and 99.5th percentiles with the truth's outline; one channel or three."""
    channels = [look(channel) for channel in (record.image[:3] if len(record.image) >= 3 and look.index is None else record.image[:1])]
    low, high = np.percentile(channels, (0.5, 99.5))
    stretched = np.clip((np.stack(channels, -1) - low) / max(high - low, 1e-8), 0, 1)
    pixels = np.rint(255 * np.broadcast_to(stretched, (*stretched.shape[:2], 3))).astype(np.uint8)
    picture = Image.fromarray(pixels).resize(look.size, Image.Resampling.BICUBIC)
    large = np.asarray(Image.fromarray(truth).resize(look.size, Image.Resampling.NEAREST))
    edge = large & np.logical_not(ndimage.binary_erosion(large, border_value=1))
    drawn = np.where(edge[..., None], np.array(CONTOUR, np.uint8), np.asarray(picture))
    return uri(Image.fromarray(drawn), "JPEG", quality=82, subsampling=0)


def classes(labels: np.ndarray, size: tuple[int, int]) -> str:
    """Label indices in colours; beyond the palette they come round again."""
    wrapped = np.where(labels == 0, 0, 1 + (labels.astype(int) - 1) % (len(CLASSES) - 1)).astype(np.uint8)
    return uri(paletted(wrapped, CLASSES).resize(size, Image.Resampling.NEAREST), "PNG", bits=3)


def scale(values: np.ndarray, dark: tuple[int, int, int], size: tuple[int, int]) -> str:
    """[0, 1] from white to `dark`."""
    wide = Image.fromarray(np.clip(values, 0, 1).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    levels = np.rint(np.asarray(wide) * (LEVELS - 1)).astype(np.uint8)
    ramp = np.linspace(WHITE, dark, LEVELS).round().astype(int)
    return uri(paletted(levels, [tuple(colour) for colour in ramp.tolist()]), "PNG")


def paletted(indices: np.ndarray, palette: list) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(indices)).convert("L")
    picture.putpalette([value for colour in palette for value in colour])  # makes it an image of palette indices
    return picture


def uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
