"""Images in memory."""

import numpy as np

from ..errors import InputError


def as_channels(array: np.ndarray) -> np.ndarray:
    """(h, w), (h, w, 3|4), (c, h, w) or (c, x, y, z) -> (c, *s) float32; integers scaled to [0, 1] by their type's range."""
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] not in (1, 3):
        array = np.moveaxis(opaque(array), -1, 0)
    if array.ndim not in (3, 4):
        raise InputError(f"an array of shape {array.shape} is no image; give (h, w), (h, w, 3), (c, h, w) or (c, x, y, z)")
    scale = np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.unsignedinteger) else 1
    array = (array / np.float32(scale)).astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError("the array holds NaN or infinite values; replace them before predicting")
    return array


def opaque(array: np.ndarray) -> np.ndarray:
    """(h, w, 3 or 4) -> (h, w, 3). Raises InputError where alpha says that colours are not what they seem."""
    full = np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.integer) else 1
    if (array[..., 3:] != full).any():
        raise InputError("the array has transparent pixels, whose colour is undefined; flatten it onto a background")
    return array[..., :3]
