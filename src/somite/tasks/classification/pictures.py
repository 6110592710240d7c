"""How a classified case looks: its image, with what was said of it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...data.record import Record
from ...wording import number
from ..view import Panel, Pictures
from .answer import Classified

SIDE = 256  # pixels of a picture's longer side
FEW = 4  # classes that are told, the most probable first


def pictures(answers: Sequence[Classified], axis: int) -> Pictures:
    panels = [[Panel("image", photograph(one.record, axis), photograph=True)] for one in answers]
    volumes = any(len(one.record.shape) == 3 for one in answers)
    note = "Of each volume, the middle slice. " if volumes else ""
    return Pictures(panels, [facts(one) for one in answers], [], f"{note}Images are stretched between their 0.5th and 99.5th percentiles.")


def facts(one: Classified) -> list[str]:
    true = [name for name, has in zip(one.names, one.truth, strict=True) if has]
    likely = [int(index) for index in (-one.probability).argsort()[:FEW]]
    said = ", ".join(f"{one.names[index]} {number(float(one.probability[index]))}" for index in likely)
    return [f"truth: {', '.join(true) or 'none'}", f"answer: {', '.join(one.answer) or 'none'}", said]


def photograph(record: Record, axis: int) -> Image.Image:
    """One channel or the first three, between their 0.5th and 99.5th percentiles."""
    image = record.image
    if image.ndim == 4:
        image = np.rot90(image.take(image.shape[axis + 1] // 2, axis + 1), axes=(1, 2))
    image = image[:3] if len(image) >= 3 else image[:1]
    low, high = np.percentile(image, (0.5, 99.5))
    stretched = np.moveaxis(np.clip((image - low) / max(high - low, 1e-8), 0, 1), 0, -1)
    pixels = np.rint(255 * np.broadcast_to(stretched, (*stretched.shape[:2], 3))).astype(np.uint8)
    scale = SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
