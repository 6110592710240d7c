"""Images in memory: NumPy arrays, Pillow images and torch tensors become one kind, float32 with channels first."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from ..errors import InputError

_NUMBERS = "biuf"  # kinds of dtype: bool, signed, unsigned, float


def as_channels(image: Any) -> Float32[np.ndarray, "c *s"]:  # noqa: ANN401 - whatever the user gives
    """(c, *s) float32; unsigned integers scaled to [0, 1] by their type's range, other numbers as they stand.

    image: an array or tensor (h, w), (h, w, 3), (h, w, 4), (c, h, w) or (c, x, y, z), tensors on any device; or a Pillow
    image, as it lies in memory (a rotation that its EXIF data ask for is not carried out). Alpha must be opaque.
    Raises InputError for what is no image: other types, other numbers (complex, strings, objects), no pixels, NaN.
    """
    if isinstance(image, Image.Image):
        array = _pixels(image)
    else:
        array = _numbers(image)
        if array.ndim == 2:
            array = array[None]
        elif array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] not in (1, 3):
            array = np.moveaxis(opaque(array), -1, 0)
    if array.ndim not in (3, 4):
        raise InputError(f"an array of shape {array.shape} is no image; give (h, w), (h, w, 3), (c, h, w) or (c, x, y, z)")
    if not array.size:
        raise InputError(f"an array of shape {array.shape} is empty; give an image with pixels")
    scale = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        array = (array / np.float32(scale)).astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError("the array holds NaN or infinite values; replace them before predicting")
    return array


def opaque(array: np.ndarray) -> np.ndarray:
    """(h, w, 3 or 4) -> (h, w, 3). Raises InputError where alpha says that colours are not what they seem."""
    full = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
    if (array[..., 3:] != full).any():
        raise InputError("the array has transparent pixels, whose colour is undefined; flatten it onto a background")
    return array[..., :3]


def _numbers(image: Any) -> np.ndarray:  # noqa: ANN401
    if isinstance(image, torch.Tensor):
        image = _from_torch(image)
    elif not isinstance(image, np.ndarray):
        raise InputError(
            f"an object of type {type(image).__name__} is no image; give a path, a NumPy array, a Pillow image or a torch tensor"
        )
    if image.dtype.kind not in _NUMBERS:
        raise InputError(f"an array of {image.dtype} is no image; give real numbers, such as uint8 or float32")
    return image


def _from_torch(tensor: torch.Tensor) -> np.ndarray:
    try:
        if tensor.is_floating_point():
            tensor = tensor.float()  # NumPy has no bfloat16
        return np.asarray(tensor.numpy(force=True))
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantised, or of a device without data
        raise InputError(f"a tensor of {tensor.dtype} on {tensor.device} cannot be read; give a dense one of plain numbers") from error


def _pixels(image: Image.Image) -> np.ndarray:
    """(c, h, w), c = 1 or 3, in the type that a pixel has in memory."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's JPEG with previews
        raise InputError(f"the Pillow image has {image.n_frames} pages where one was wanted; give a copy() of the page that you mean")  # type: ignore[attr-defined]
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # Pillow before 11.3
    try:
        array = np.asarray(image if sixteen else _plain(image))
    except (OSError, SyntaxError, ValueError) as error:  # it may not have been decoded before
        raise InputError(f"the Pillow image of mode {image.mode} cannot be read ({error}); convert it to RGB or L") from error
    if sixteen:
        array = array.astype(np.uint16)
    if array.ndim == 2:
        return array[None]
    channels = np.moveaxis(opaque(array), -1, 0)
    return channels[:1] if image.mode in ("LA", "La") else channels


def _plain(image: Image.Image) -> Image.Image:
    """Palettes, inks and other spaces of colour as RGB, whatever has alpha as RGBA."""
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBa"):
        return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return image if image.mode in ("1", "L", "RGB", "RGBA", "I", "F") else image.convert("RGB")
