"""Images that lie many in a file: MedMNIST's .npz of arrays, opened once a process and cut by index."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from ..errors import InputError


@dataclass(frozen=True)
class Packed:
    """One image: row `index` of the array `name` of a file, uint8 of shape (h, w), (h, w, 3) or (x, y, z)."""

    path: Path
    name: str
    index: int

    @property
    def pixels(self) -> UInt8[np.ndarray, "..."]:
        return array(self.path, self.name)[self.index]

    def read(self) -> Float32[np.ndarray, "c *s"]:
        """In [0, 1], channels first."""
        pixels = self.pixels.astype(np.float32) / 255
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if pixels.shape[2:] == (3,) else pixels[None]


@lru_cache(maxsize=8)
def array(path: Path, name: str) -> np.ndarray:
    """An array of the file, whole: compressed, it cannot be read in part. Raises InputError where the file is damaged."""
    try:
        with np.load(path) as found:  # allow_pickle stays False: arrays of objects could run code
            values = found[name]
    except Exception as error:  # NumPy, zipfile and Python's tokenizer have a zoo of them for damaged files
        raise unreadable(path, error) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif" or values.ndim == 0:
        raise InputError(f"{path} holds no array of numbers under {name}: copy it again from its origin")
    return values


def names(path: Path) -> list[str]:
    """The arrays in the file, of which none is read."""
    try:
        with np.load(path) as found:
            return list(found.files)
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    why = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path} cannot be read as an .npz of arrays ({why[:200]}): copy it again from its origin")
