"""What generated images look like: pixels, contact sheets, and what the report says of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ...wording import number
from ..view import HIGHER, LOWER, Found, Key, Meaning, Number, Panel, Pictures, View

MEANINGS = {
    "kid": Meaning("KID", LOWER, "squared distance of the two sets' features; 0 for one distribution, and below 0 by chance", share=False),
    "precision": Meaning("Precision", HIGHER, "share of generated images that lie among the real ones"),
    "recall": Meaning("Recall", HIGHER, "share of real images that lie among the generated ones"),
    "density": Meaning(
        "Density", HIGHER, "how crowded with real images the generated ones' places are; 1 for one distribution", share=False
    ),
    "coverage": Meaning("Coverage", HIGHER, "share of real images with a generated one in their neighbourhood"),
    "diversity": Meaning(
        "Diversity", HIGHER, "mean distance of two generated images over that of two real ones; 1 for one distribution", share=False
    ),
    "memorised": Meaning("Memorised", LOWER, "share of generated images nearer to a training image than held-out images usually are"),
    "copied": Meaning("Copied", LOWER, "the same by distances relative to the training images around, so that a blurred image is no copy"),
    "brightness": Meaning("Brightness gap", LOWER, "mean brightness against that of the real image of the same labels"),
    "contrast": Meaning("Contrast gap", LOWER, "standard deviation of brightness against that of the real image"),
}


def pixels(image: Tensor) -> np.ndarray:
    """(1 or 3, h, w) in [0, 1] -> uint8 (h, w) or (h, w, 3)."""
    array = np.rint(255 * image.clamp(0, 1).movedim(0, -1).numpy()).astype(np.uint8)
    return array[..., 0] if array.shape[-1] == 1 else array


def sheet(images: Sequence[np.ndarray], columns: int | None = None, gap: int = 2) -> Image.Image:
    """Images of one size (h, w) or (h, w, 3) in rows, white between them."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    height, width = images[0].shape[:2]
    rows = math.ceil(len(images) / columns)
    out = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (height + gap) * (index // columns), (width + gap) * (index % columns)
        out[top : top + height, left : left + width] = image if image.ndim == 3 else image[..., None]
    return Image.fromarray(out)


LARGE = {"kid", "precision", "recall", "diversity", "memorised"}  # shown at the top of the page


def told(name: str, found: dict[str, Any]) -> Number:
    """A number of the sets, named with its extractor, and with what chance would give."""
    meaning = MEANINGS[name]
    by = f" ({found['by']})" if "by" in found else ""
    chance = f"; chance gives {number(found['chance'])}" if "chance" in found else ""
    return Number(replace(meaning, name=f"{meaning.name}{by}", text=f"{meaning.text}{chance}"), found, name in LARGE)


def view(found: Found) -> View:
    sets = found.summary["sets"]
    numbers = [told(name, one) for name, one in sets.items()]
    numbers += [Number(MEANINGS[name], one) for name, one in found.summary["metrics"].items()]
    extractor = found.summary["extractor"]
    notes = [
        ("By these features alone.", f"The sets are compared by {extractor}; numbers of another extractor do not compare with these."),
        ("Sets of one size.", "Precision, recall, density and coverage depend on how many images there are of each kind."),
    ]
    if sets and "memorised" not in sets:
        notes.append(("Memorisation was not measured.", "That needs the training images, and evaluated images that are none of them."))
    return View("brightness", MEANINGS["brightness"].name, numbers, notes=notes)


def pictures(cases: Sequence[tuple[Tensor, Tensor]]) -> Pictures:
    panels = []
    for real, images in cases:
        shown = [("real", real), *(("generated", image) for image in images[:4])]
        panels.append([Panel(name, Image.fromarray(pixels(image)).convert("RGB"), photograph=True) for name, image in shown])
    return Pictures(panels, [[] for _ in cases], [Key("#000000", "real, and generated for the same labels")], "At the network's size.")
