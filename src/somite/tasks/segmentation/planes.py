"""Which planes of a case are shown: a flat image itself; of a volume three, as radiologists look at them.

Axial planes are seen from the feet, coronal ones from the front and sagittal ones from the patient's left, so that the patient's right (or
front) is at the left and the head at the top. An oblique volume is shown along its own axes, each named by the direction it is nearest to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...data.geometry import Geometry, aligned, moved
from ...data.record import Record

SIDE = 256  # pixels of a picture's longer side; of a volume its longest
PLANES = (("axial", 2, "R"), ("coronal", 1, "R"), ("sagittal", 0, "A"))  # across which axis of VIEW, and what is at the left
VIEW = np.diag([-1.0, -1.0, -1.0, 1.0])  # axes to the left, to the back, to the feet: as columns and rows of pictures run
WHITE, LOW, HIGH = (255, 255, 255), 16, 40  # pixels that a letter needs, and a bar with its length


@dataclass(frozen=True)
class Plane:
    """A plane of a case, and the size (width, height) at which it is drawn in the middle of `canvas`. name: "" of a flat image."""

    size: tuple[int, int]
    canvas: tuple[int, int]
    name: str = ""
    left: str = ""  # the direction at the left edge
    where: Geometry | None = None
    axis: int = 0  # once the volume is turned to VIEW
    index: int = 0
    number: int = 1  # of the slice in the file, counted from 1 along the file's own axis
    depth: int = 1  # slices along the axis
    bar: tuple[int, int] | None = None  # a length in mm, and in pixels

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """(*s) -> (h, w)"""
        return array if self.where is None else viewed(array, self.where).take(self.index, self.axis).T

    def framed(self, picture: Image.Image) -> Image.Image:
        """A picture of `size` on its canvas, of the same mode; what is beside it has the value 0."""
        if picture.size == self.canvas:
            return picture
        frame = Image.new(picture.mode, self.canvas)
        if picture.mode == "P":
            frame.putpalette(picture.getpalette() or [])
        frame.paste(picture, ((self.canvas[0] - picture.width) // 2, (self.canvas[1] - picture.height) // 2))
        return frame

    def lettered(self, picture: Image.Image) -> Image.Image:
        """With the letter of the direction at the left, and a bar for the scale; flat images have neither."""
        if not self.left:
            return picture
        picture, (width, height) = picture.convert("RGB"), picture.size
        draw = ImageDraw.Draw(picture)
        outlined = {"font": ImageFont.load_default(12), "fill": WHITE, "stroke_width": 1, "stroke_fill": (0, 0, 0)}
        draw.text((4, height / 2), self.left, anchor="lm", **outlined)
        if self.bar is not None:
            length, pixels = self.bar
            draw.line([(width - 6 - pixels, height - 4), (width - 6, height - 4)], fill=WHITE, width=3)
            draw.text((width - 6, height - 7), f"{length} mm", anchor="rs", **outlined)
        return picture


def planes(record: Record, shown: np.ndarray) -> list[Plane]:
    """`shown` (*s): how much a voxel belongs to what is looked for. Of a volume, the slices with most of it."""
    if len(record.shape) == 2:
        height, width = record.shape
        size = scaled((width, height), SIDE / max(width, height))
        return [Plane(size, size)]
    where = record.geometry or Geometry(np.eye(4), record.shape)
    turned = viewed(shown, where)
    there = moved(where, like(where))
    extents, voxels = np.array(turned.shape) * there.spacing_mm, np.linalg.solve(where.affine, there.affine)
    scale, made = SIDE / extents.max(), []
    length = round_length(extents.max() / 4)
    wide = max(1, round(extents[:2].max() * scale))  # all pictures of a case are as wide: a millimetre is as long in each
    for name, axis, left in PLANES:
        width, height = np.delete(extents, axis)
        size = scaled((width, height), scale)
        canvas = (wide, max(size[1], LOW if made else HIGH))
        bar = (length, round(length * scale)) if canvas[1] >= HIGH else None  # a thin picture has no room for it, and its scale is theirs
        index = most(turned, axis)
        own = int(np.abs(voxels[:3, axis]).argmax())  # the file's axis, along which the number may run against ours
        number = round(voxels[own, axis] * index + voxels[own, 3]) + 1
        made.append(Plane(size, canvas, name, left, where, axis, index, number, turned.shape[axis], bar))
    return made


def sliced(record: Record, axis: int, index: int) -> Plane:
    """A flat image itself; of a volume the slice `index` across the file's own `axis`, turned as `planes` turns it, without letters."""
    if len(record.shape) == 2:
        return planes(record, np.ones(record.shape))[0]
    where = record.geometry or Geometry(np.eye(4), record.shape)
    there = moved(where, like(where))
    voxels = np.linalg.solve(where.affine, there.affine)
    ours = int(np.abs(voxels[axis, :3]).argmax())
    at = round((index - voxels[axis, 3]) / voxels[axis, ours])
    sides = np.delete(np.array(there.shape) * there.spacing_mm, ours)
    size = scaled((sides[0], sides[1]), SIDE / sides.max())
    return Plane(size, size, where=where, axis=ours, index=at, number=index + 1, depth=record.shape[axis])


def viewed(array: np.ndarray, where: Geometry) -> np.ndarray:
    """(x, y, z) with its axes to the patient's left, back and feet, as near as they come."""
    return aligned(array, where, like(where))


def like(where: Geometry) -> Geometry:
    return Geometry(VIEW, where.shape)


def most(shown: np.ndarray, axis: int) -> int:
    """The slice with most; of several, the one nearest to the centre of all."""
    amounts = shown.sum(tuple(other for other in range(3) if other != axis), dtype=float)
    if not amounts.any():
        return len(amounts) // 2
    centre = (amounts * np.arange(len(amounts))).sum() / amounts.sum()
    best = np.flatnonzero(amounts == amounts.max())
    return int(best[np.abs(best - centre).argmin()])


def scaled(size: Sequence[float], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def round_length(most_mm: float) -> int:
    """The longest of 1, 2, 5, 10, 20, 50 ... mm that is no longer than this, but 1 at least."""
    steps = [step * 10**power for power in range(4) for step in (1, 2, 5)]
    return max([step for step in steps if step <= most_mm], default=1)
