"""Two-dimensional files: PNG, JPEG, TIFF and BMP, of every kind that turns up in medical collections.

Images become float32 (c, h, w) in [0, 1] by the bit depth of the file, never by its content; masks keep the integers
that the file stores. What has no single meaning (transparency, several pages, signed integers) is refused.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float32, Int32
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import InputError
from ..files import replacing
from .geometry import Header
from .voxels import NotFiniteError, memory, too_large

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
PIXELS = 2**29  # a square of 23,170 pixels a side; with more, a slide is cut into tiles anyway
_ARRAYS = 9  # bytes a sample of what is made of it: the file's, and two arrays of float32
_BOUND = Lock()
_STANDARD = 57.6  # mean of the luminance table that libjpeg scales, of quality 50
_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262  # tags of EXIF and TIFF


@contextmanager
def _within_memory(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise too_large(path) from error


@dataclass(frozen=True)
class _Picture:
    """A decoded file: Pillow's image, upright, and the depth that the file stores, which Pillow forgets."""

    image: Image.Image
    bits: int
    orientation: int  # EXIF's: 1 upright; others ask for a rotation or reflection, from 5 on with a transposition

    @property
    def turned(self) -> bool:
        return self.orientation != 1


def read_header(path: Path) -> Header:
    """What the file says of itself; no pixel is decoded. Raises InputError for what is no image of a kind that somite reads."""
    with _within_memory(path):
        picture = _open(path, pixels=False)
    image, mode = picture.image, picture.image.mode
    grey = mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16")
    size = image.size if picture.orientation < 5 else image.size[::-1]
    return Header(size[::-1], 1 if grey else 3, "float32" if mode == "F" else f"uint{picture.bits}", None, _quality(image))


def _quality(image: Image.Image) -> int | None:
    """Of a JPEG, the quality that scales libjpeg's standard luminance table to the file's; None of others."""
    table = getattr(image, "quantization", {}).get(0)
    if not table:
        return None
    scale = 100 * sum(table) / len(table) / _STANDARD
    return round(min(max(100 - scale / 2 if scale <= 100 else 5000 / scale, 1), 100))


def read_image(path: str | Path) -> Float32[np.ndarray, "c h w"]:
    """A grey (c = 1) or colour (c = 3) image in [0, 1]; float TIFF as it stands."""
    path = Path(path)
    with _within_memory(path):
        picture = _open(path)
        pixels = _deep_colour(picture, path) if _is_deep_colour(picture) else _samples(picture, path)
        pixels = _opaque(pixels if pixels.ndim == 3 else pixels[..., None], path)
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def read_labels(path: str | Path) -> Int32[np.ndarray, "h w"]:
    """The integers that a mask file stores: grey values, or the indices of a palette."""
    path = Path(path)
    with _within_memory(path):
        return _labels(_open(path), path)


def _labels(picture: _Picture, path: Path) -> Int32[np.ndarray, "h w"]:
    mode = picture.image.mode
    if mode == "P":
        return _palette_labels(picture.image)
    if mode in ("LA", "RGB", "RGBA"):
        return _grey_of_colour(picture, path)
    values = np.asarray(picture.image)
    if mode == "F":
        return _whole(values, path)
    if mode not in ("1", "L", "I") and not mode.startswith("I;16"):
        raise InputError(f"{path} is a mask in colour mode {mode}; save it as grey or palette PNG of integer labels")
    if mode == "L" and picture.bits in (2, 4):
        values = values // (255 // (2**picture.bits - 1))  # Pillow stretches 2 and 4 bits to 0..255
    if mode.startswith("I;16"):
        _refuse_inverted(picture.image, path)
    if values.min() < 0:
        raise InputError(f"{path} is a mask with negative values (down to {values.min()}); labels start at 0")
    return values.astype(np.int32)


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write uint8 or uint16 pixels, (h, w) or (h, w, 3)."""
    colour = array.ndim == 3 and array.shape[-1] == 3
    if array.dtype not in (np.uint8, np.uint16) or not (colour or array.ndim == 2):
        raise ValueError(f"PNG holds uint8 or uint16 of shape (h, w) or (h, w, 3), got {array.dtype} {array.shape}")
    with replacing(path) as temporary:
        if colour and array.dtype == np.uint16:
            import SimpleITK as sitk  # noqa: N813 — Pillow has no 16-bit colour

            sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(temporary))
        else:
            # The last tenth of a 16-bit map's bytes would take most of the time that a large photograph takes.
            Image.fromarray(array).save(temporary, format="PNG", optimize=array.dtype == np.uint8)


def check_file(path: Path) -> None:
    """Refuse what is not there, is a folder, or has no bytes."""
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder where a file was wanted; name a file in it")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy it again from its origin")


def damaged(path: Path, error: Exception) -> InputError:
    """What a library's complaint about a file's content means to the user, on one line."""
    why = " ".join(str(error).split())
    return InputError(f"{path} is truncated or damaged ({why}): copy it again from its origin")


def _open(path: Path, pixels: bool = True) -> _Picture:
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about damage that it then raises, or that is no damage
            # By handle: by name, Pillow 13 maps uncompressed TIFFs to memory and garbles those with a rotation tag.
            with path.open("rb") as file, _unbounded(), Image.open(file, formats=_FORMATS) as image:
                _refuse_large(image, path)
                _refuse_pages(image, path)
                bits = _stored_bits(image, path)
                told = image.getexif().get(_ORIENTATION, 1)
                orientation = told if isinstance(told, int) else 1
                if not pixels:
                    return _Picture(image, bits, orientation)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _Picture(image, bits, orientation)
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that somite reads, or its header is damaged: save it as 8- or 16-bit PNG") from error
    except _DAMAGE as error:
        raise damaged(path, error) from error


@contextmanager
def _unbounded() -> Iterator[None]:
    """Without Pillow's own bound, a third of ours: one number for the whole process, looked at where files are opened and loaded."""
    with _BOUND:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _refuse_large(image: Image.Image, path: Path) -> None:
    """A header may promise any number of pixels, and a packed file of some kB can hold them."""
    pixels = image.width * image.height
    if pixels > PIXELS:
        raise _too_many(path)
    if pixels * len(image.getbands()) * _ARRAYS > memory():
        raise too_large(path)


def _too_many(path: Path) -> InputError:
    return InputError(f"{path} has too many pixels to read at once (more than {PIXELS:,}): cut it into tiles or shrink it")


def _refuse_pages(image: Image.Image, path: Path) -> None:
    if image.format == "MPO":
        return  # a phone's JPEG: the picture first, then previews of it
    pages = getattr(image, "n_frames", 1)  # Pillow's BMP images have no such attribute
    if pages > 1:
        raise InputError(
            f"{path} has {pages} pages where one image was wanted: save a volume as NIfTI (.nii.gz; ITK-SNAP, Fiji and "
            "SimpleITK can), or split the pages into files (tiffsplit does)"
        )


def _stored_bits(image: Image.Image, path: Path) -> int:
    """Bits of one sample as stored in the file; Pillow reads 16-bit colour at 8 bits without saying so."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS, (1,)))
    return 8


def _is_deep_colour(picture: _Picture) -> bool:
    return picture.bits > 8 and picture.image.mode not in ("I", "F") and not picture.image.mode.startswith("I;16")


def _deep_colour(picture: _Picture, path: Path) -> Float32[np.ndarray, "h w c"]:
    """16-bit colour, which SimpleITK reads as it is."""
    import SimpleITK as sitk  # noqa: N813

    if picture.turned:
        raise InputError(f"{path} is 16-bit colour with a rotation tag: save it upright, without the tag")
    try:
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise InputError(f"{path} is of an unreadable 16-bit kind: save it as 16-bit grey or RGB PNG") from error
    if pixels.dtype != np.uint16 or pixels.shape[:2] != picture.image.size[::-1]:
        raise InputError(f"{path} is of an unreadable 16-bit kind: save it as 16-bit grey or RGB PNG")
    return pixels.astype(np.float32) / 65535


def _samples(picture: _Picture, path: Path) -> Float32[np.ndarray, "..."]:
    """Pixels over the value that stands for white: (h, w), or (h, w, c) with c = 2, 3 or 4."""
    image = picture.image
    if image.mode == "F":
        return _finite(np.array(image, dtype=np.float32), path)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        _refuse_inverted(image, path)
        return np.asarray(image).astype(np.float32) / (2**picture.bits - 1)
    if image.mode == "I":
        raise InputError(f"{path} holds signed or 32-bit integers, which have no defined white: save it as 16-bit grey or float TIFF")
    if image.mode == "1":
        return np.asarray(image).astype(np.float32)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")  # without the ink profile: good enough to look at, as any viewer does
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path} has colour mode {image.mode}, which has no plain meaning: save it as grey or RGB PNG")
    return np.asarray(image).astype(np.float32) / 255


def _opaque(pixels: Float32[np.ndarray, "h w c"], path: Path) -> Float32[np.ndarray, "h w k"]:
    """Drop a plane of alpha that is opaque everywhere; refuse one that is not."""
    if pixels.shape[-1] not in (2, 4):
        return pixels
    if pixels[..., -1].min() < 1:
        raise InputError(
            f"{path} has transparent pixels, whose colour is undefined: flatten it onto a background "
            "(`magick in.png -background black -flatten out.png`)"
        )
    return pixels[..., :-1]


def _finite(values: Float32[np.ndarray, "h w"], path: Path) -> Float32[np.ndarray, "h w"]:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise NotFiniteError(f"{path} has {bad} pixels that are NaN or infinite: replace them, by 0 say, and save it again")
    return values


def _refuse_inverted(image: Image.Image, path: Path) -> None:
    """Pillow inverts white-is-zero TIFFs of 8 bits but not those of 16."""
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:
        raise InputError(f"{path} is a 16-bit TIFF in which 0 is white: invert it and save it with 0 as black")


def _palette_labels(image: Image.Image) -> Int32[np.ndarray, "h w"]:
    """The indices, except where the palette only encodes greys: then the greys."""
    index = np.asarray(image)
    colours = np.array(image.getpalette("RGB")).reshape(-1, 3)
    used = colours[np.unique(index)[np.unique(index) < len(colours)]]
    grey_palette = (colours == colours[:, :1]).all()
    black_and_white = np.isin(used.sum(axis=1), (0, 765)).all() and len(used) == len(np.unique(index))
    # Used greys alone do not decide: colour 7 of the PASCAL VOC palette is a grey.
    if (grey_palette or black_and_white) and index.max() < len(colours):
        return colours[index, 0].astype(np.int32)
    return index.astype(np.int32)


def _grey_of_colour(picture: _Picture, path: Path) -> Int32[np.ndarray, "h w"]:
    """A grey mask that was stored as colour; one in real colours is refused."""
    top = 255
    if _is_deep_colour(picture):
        pixels, top = _deep_colour(picture, path), 65535
    else:
        pixels = np.asarray(picture.image).astype(np.float32) / 255
    pixels = _opaque(pixels, path)
    if (pixels != pixels[..., :1]).any():
        raise InputError(
            f"{path} is a mask in colours, which do not say which label each one is: save it as a grey PNG of integer labels (0, 1, 2 ...)"
        )
    return np.rint(pixels[..., 0] * top).astype(np.int32)


def _whole(values: np.ndarray, path: Path) -> Int32[np.ndarray, "h w"]:
    if not np.isfinite(values).all() or (values != np.rint(values)).any() or values.min() < 0:
        raise InputError(f"{path} is a mask with values that are no labels: save it as a grey PNG of integers from 0")
    return values.astype(np.int32)
