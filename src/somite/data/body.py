"""Where a scan shows a body and not the air around it."""

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from .frame import frame
from .record import Record


class Body:
    """CT's body mask, vox2vec's way (arXiv 2307.14725): all but the air around, so lungs and bowel gas count, and the table too.

    Air is what is darker than `threshold` in every channel, in the units of the file (HU), and the air around is what can be reached
    through air from the left, right, front and back; not from below and above, where scans cut through the body. A volume without a place
    in space is taken to run to the right, the front and the head.
    """

    def __init__(self, threshold: float = -500.0) -> None:
        self.threshold = threshold

    def __call__(self, record: Record) -> UInt8[np.ndarray, "*native"]:
        """0 or 1 for each of the file's voxels."""
        turned = frame(record, turn=True, above=None)
        air = (turned.cut(record.image) < self.threshold).all(axis=0)
        walls = [(1, 1) if axis < 2 else (0, 0) for axis in range(air.ndim)]
        around = connected(np.pad(air, walls, constant_values=True))
        inside = tuple(slice(a, n + a) for (a, _), n in zip(walls, air.shape, strict=True))
        return turned.back((~around[inside])[None].astype(np.uint8))[0]


def connected(there: Bool[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
    """What can be reached from the first corner through faces."""
    regions = np.zeros(there.shape, np.int32)
    ndimage.label(there, output=regions)
    return regions == regions.flat[0]
