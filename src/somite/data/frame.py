"""What of a volume the network looks at, before anything is resized: the volume turned, and cropped to what is bright enough."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Shaped

from ..errors import InputError
from .geometry import Geometry, aligned, moved
from .record import Record

RAS = Geometry(np.eye(4), (1, 1, 1))  # axes run to the right, to the front and to the head


@dataclass(frozen=True)
class Frame:
    """A box of a volume's grid whose axes may be in another order and direction; there and back nothing is resampled.

    geometry, turned: where the file's grid lies, and where it lies once it is turned; None for both where it is not turned.
    space: of the whole grid, turned. box: what of it is looked at.
    """

    geometry: Geometry | None
    turned: Geometry | None
    space: tuple[int, ...]
    box: tuple[slice, ...]

    def cut(self, array: Shaped[np.ndarray, "*native"]) -> Shaped[np.ndarray, "*seen"]:
        """(*c, *native) -> (*c, *seen)"""
        if self.geometry is not None:
            array = aligned(array, self.geometry, RAS)
        return np.ascontiguousarray(array[(..., *self.box)])

    def back(self, maps: Shaped[np.ndarray, "k *seen"]) -> Shaped[np.ndarray, "k *native"]:
        """Maps of what was looked at on the grid of the file. Outside of the box one map is 0, and of several the first is 1."""
        whole = maps
        if maps.shape[1:] != self.space:
            whole = np.zeros((len(maps), *self.space), maps.dtype)
            if len(maps) > 1:
                whole[0] = 1
            whole[(slice(None), *self.box)] = maps
        if self.geometry is not None and self.turned is not None:
            whole = aligned(whole, self.turned, self.geometry)
        return np.ascontiguousarray(whole)

    def of(self, record: Record) -> Record:
        """The case as it would be, had the file held no more than this, in this order."""
        image, labels = self.cut(record.image), None if record.labels is None else self.cut(record.labels)
        where = self.turned or record.geometry
        if where is not None:
            corner = np.eye(4)
            corner[:3, 3] = [part.start for part in self.box]
            where = Geometry(where.affine @ corner, image.shape[1:])
        return replace(record, image=image, labels=labels, geometry=where, spacing=where.spacing_mm if where else record.spacing)


def frame(record: Record, turn: bool, above: float | None) -> Frame:
    """turn: axes become the nearest of RAS; a volume without a place in space (an array) is taken to have them. above: the box of the
    voxels with at least this brightness, in any channel; None takes all. Raises InputError where there is no such voxel.
    """
    where = record.geometry if turn else None
    image = record.image if where is None else aligned(record.image, where, RAS)
    box = tuple(slice(0, n) for n in image.shape[1:]) if above is None else bright_box(image, above, record.case.id)
    return Frame(where, None if where is None else moved(where, RAS), image.shape[1:], box)


def bright_box(image: Float32[np.ndarray, "c *s"], above: float, case: str) -> tuple[slice, ...]:
    bright = (image >= above).any(axis=0)
    axes = range(bright.ndim)
    lines = [np.flatnonzero(np.any(bright, axis=tuple(other for other in axes if other != axis))) for axis in axes]
    if not len(lines[0]):
        raise InputError(
            f"{case}: no voxel is as bright as --data.preprocess.above {above:g} (the brightest is {image.max():g}), so nothing would be left; "
            "give a lower number, or null to keep volumes whole"
        )
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)
