"""A decoded case <-> the tensors that a network sees."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .frame import Frame, frame
from .normalise import Normalise, Unit
from .record import Record

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, what Pillow's convert("L") uses


class Preprocess:
    """Channels, size and brightness; a volume for a 2D network becomes its slices along `axis`.

    A case becomes (n, c, *s): n = 1 for an image or for a volume and a 3D network, n slices for a volume and a 2D network.

    channels: 1 or 3 convert on purpose (grey is repeated, colour becomes luminance); any other number must be the file's.
    size: None keeps the native size; an integer is the longer side, the aspect kept; a list is the exact size.
    spacing_mm: resample volumes to these distances, one an axis that the network sees, instead of `size`.
    cubic: bicubic instead of (antialiased) linear resizing of 2D images. Masks are resized to the nearest pixel.
    dilated: masks of 2D images are resized linearly, and whatever is left of them counts, as the official MedSegDiff code does. Small
    masks grow by a fifth; here to reproduce published numbers only.
    orientation: "RAS" turns volumes so that their axes run to the right, to the front and to the head (of an oblique volume the
    nearest), whatever order the file has; `axis` is then one of these. None takes the file's axes.
    above: volumes are cropped to the box of what is at least this bright in the file, -500 for the body in CT.
    What orientation and `above` do to an image is done to its masks, and undone in what is computed from it.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int | list[int] | None = None,
        normalise: Normalise | None = None,
        dims: Literal[2, 3] = 2,
        axis: Literal[0, 1, 2] = 2,
        cubic: bool = False,
        spacing_mm: list[float] | None = None,
        dilated: bool = False,
        orientation: Literal["RAS"] | None = None,
        above: float | None = None,
    ) -> None:
        if spacing_mm is not None and (size is not None or len(spacing_mm) != dims or min(spacing_mm) <= 0):
            raise InputError(f"--data.preprocess.spacing_mm {spacing_mm}: give {dims} numbers above 0, and no size beside them")
        self.channels, self.size, self.normalise = channels, size, normalise or Unit()
        self.dims, self.axis, self.cubic, self.spacing_mm, self.dilated = dims, axis, cubic, spacing_mm, dilated
        self.orientation, self.above = orientation, above

    @property
    def whole(self) -> bool:
        """Whether the network sees the file's own grid, whose slices can be restored one by one."""
        return self.orientation is None and self.above is None

    def frame(self, record: Record) -> Frame:
        return frame(record, self.orientation is not None, self.above)

    def seen(self, record: Record) -> Record:
        """What of the case the network looks at."""
        return record if self.whole else self.frame(record).of(record)

    def image(self, record: Record) -> Tensor:
        """(n, c, *s) float32."""
        record = self.seen(record)
        image = self.coloured(self.stacked(torch.as_tensor(record.image), record), record.case.id)
        size = self.target(tuple(image.shape[2:]), record)
        if size != tuple(image.shape[2:]):
            image = self.resized(image, size)
        return self.normalise(image, record.case.id)

    def mask(self, record: Record) -> Tensor:
        """(n, 1, *s) int64 label indices."""
        truth = record.truth
        if not self.dilated:
            return self.nearest(truth, record)
        if record.values is not None or self.dims == 3:
            raise InputError("--data.preprocess.dilated is for binary masks of 2D images; set it to false")
        labels, size = self.placed(truth, record)
        grey = F.interpolate(255.0 * labels, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (grey.round() > 0).long()  # of 256 grey levels, as the images that the official code resizes

    def nearest(self, labels: Integer[np.ndarray, "*native"], record: Record) -> Tensor:
        """Labels of the file's voxels, (n, 1, *s) int64 on the network's: of the nearest voxel."""
        stacked, size = self.placed(labels, record)
        return F.interpolate(stacked.double(), size=size, mode="nearest-exact").long()  # double: exact label values

    def soft(self, maps: Float[np.ndarray, "k *native"], record: Record) -> Tensor:
        """Probabilities of the file's voxels on the network's, (n, k, *s) float32: resized linearly, so that classes go on to sum to one."""
        seen = self.seen(record)
        cut = self.stacked(torch.as_tensor(maps if self.whole else self.frame(record).cut(maps), dtype=torch.float32), seen)
        size = self.target(tuple(cut.shape[2:]), seen)
        if size == tuple(cut.shape[2:]):
            return cut
        if cut.ndim == 5:
            return F.interpolate(cut, size=size, mode="trilinear", align_corners=False)
        return F.interpolate(cut, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)

    def placed(self, labels: Integer[np.ndarray, "*native"], record: Record) -> tuple[Tensor, tuple[int, ...]]:
        """Labels before they are resized, (n, 1, *seen), and the size that they are to have."""
        seen = self.seen(replace(record, labels=labels.astype(np.uint8)))
        stacked = self.stacked(torch.as_tensor(seen.truth.astype(np.int64))[None], seen)
        return stacked, self.target(tuple(stacked.shape[2:]), seen)

    def labels(self, record: Record) -> Tensor:
        """(n, classes) float32, 0 or 1: those of the case, for each of its n slices. Raises InputError for a case without labels."""
        if record.case.labels is None:
            raise InputError(
                f"{record.case.id} has no labels, and training and evaluation need them; add them, or leave it out of the splits"
            )
        count = self.seen(record).shape[self.axis] if self.flat(record) and len(record.shape) == 3 else 1
        return torch.tensor(record.case.labels, dtype=torch.float32).expand(count, -1)

    def spacing(self, record: Record) -> tuple[float, ...] | None:
        """mm between voxels that the network sees, one an axis; None for what has no size."""
        seen = self.seen(record)
        if seen.spacing is None:
            return None
        kept = [axis for axis in range(3) if self.dims == 3 or axis != self.axis]
        space, own = tuple(seen.shape[axis] for axis in kept), [seen.spacing[axis] for axis in kept]
        return tuple(mm * n / size for mm, n, size in zip(own, space, self.target(space, seen), strict=True))

    def restore(self, maps: Tensor, record: Record) -> np.ndarray:
        """(n, k, *s) at the network's size -> (k, *native) float32. What the network did not look at is background: 0 in one map, and of
        several 1 in the first.
        """
        if self.whole:
            return self.resized_back(maps, record.shape)
        where = self.frame(record)
        return where.back(self.resized_back(maps, tuple(part.stop - part.start for part in where.box)))

    def resized_back(self, maps: Tensor, space: tuple[int, ...]) -> np.ndarray:
        """(n, k, *s) -> (k, *space), of fewer slices where there are fewer."""
        native = list(space)
        if self.dims == 2:
            plane = native if len(native) == 2 else [n for i, n in enumerate(native) if i != self.axis]
            if list(maps.shape[2:]) != plane:  # a copy of large volumes is worth avoiding
                maps = F.interpolate(maps, size=plane, mode="bilinear", align_corners=False)
            stacked = maps[0] if len(native) == 2 else maps.movedim(0, -1).movedim(-1, self.axis + 1)
        else:
            same = list(maps.shape[2:]) == native
            stacked = (maps if same else F.interpolate(maps, size=native, mode="trilinear", align_corners=False))[0]
        return stacked.numpy()

    def flat(self, record: Record) -> bool:
        """Whether the record is seen as 2D slices."""
        space = record.image.ndim - 1
        if self.dims == 3 and space != 3:
            raise InputError(f"{record.case.id}: a 2D image, but this run works on volumes; give NIfTI volumes or a 2D recipe")
        return self.dims == 2

    def stacked(self, array: Tensor, record: Record) -> Tensor:
        """(c, *native) -> (n, c, *s)"""
        if not self.flat(record) or array.ndim == 3:
            return array[None]
        return array.movedim(self.axis + 1, 0)

    def coloured(self, image: Tensor, case: str) -> Tensor:
        have = image.shape[1]
        if have == self.channels:
            return image
        if have == 1 and self.channels == 3:
            return image.expand(-1, 3, *image.shape[2:])
        if have == 3 and self.channels == 1 and image.ndim == 4:
            return (image * torch.tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)
        raise InputError(
            f"{case}: the image has {have} channels, but this run takes {self.channels}; "
            f"give images of {self.channels} channels or train with --data.preprocess.channels {have}"
        )

    def target(self, space: tuple[int, ...], record: Record) -> tuple[int, ...]:
        if self.spacing_mm is not None:
            if record.spacing is None:
                raise InputError(f"{record.case.id}: a flat image has no spacing; set --data.preprocess.spacing_mm null")
            own = record.spacing if self.dims == 3 else [mm for i, mm in enumerate(record.spacing) if i != self.axis]
            return tuple(max(1, round(n * mm / want)) for n, mm, want in zip(space, own, self.spacing_mm, strict=True))
        match self.size:
            case None:
                return space
            case int():
                return tuple(max(1, round(n * self.size / max(space))) for n in space)
            case list():
                if len(self.size) != len(space):
                    raise InputError(f"--data.preprocess.size {self.size} has {len(self.size)} numbers for {len(space)} axes")
                return tuple(self.size)

    def resized(self, image: Tensor, size: tuple[int, ...]) -> Tensor:
        if image.ndim == 5:
            return F.interpolate(image, size=size, mode="trilinear", align_corners=False)
        if self.cubic:  # it overshoots at edges: no pixel becomes darker or brighter than the image is
            return F.interpolate(image, size=size, mode="bicubic", align_corners=False).clamp(image.min(), image.max())
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
