"""One picture in every form that Python holds it in is one array; what is no image is refused in a sentence."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from somite.data.arrays import as_channels
from somite.data.images import read_image
from somite.errors import InputError

RNG = np.random.default_rng(0)
GREY, COLOUR = RNG.integers(0, 256, (5, 7), dtype=np.uint8), RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
BITS = GREY > 127
FLOATS = RNG.normal(size=(5, 7)).astype(np.float32)
FIRST = np.moveaxis(COLOUR, -1, 0)


def alpha(array, value):
    return np.concatenate([array.reshape(5, 7, -1), np.full((5, 7, 1), value, np.uint8)], -1)


def refused(given, *words):
    with pytest.raises(InputError) as error:
        as_channels(given)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


ARRAYS = {
    "grey": (GREY, GREY[None] / 255),
    "bits": (BITS, BITS[None]),
    "colour": (COLOUR, FIRST / 255),
    "colour with alpha": (alpha(COLOUR, 255), FIRST / 255),
    "channels first": (FIRST, FIRST / 255),
    "16 bits": (DEEP, DEEP[None] / 65535),
    "big-endian": (DEEP.astype(">u2"), DEEP[None] / 65535),
    "32 bits": (DEEP.astype(np.uint32) * 65537, DEEP[None] / 65535),
    "signed": (DEEP.astype(np.int32) - 1024, DEEP[None].astype(float) - 1024),
    "half": (FLOATS.astype(np.float16), FLOATS[None].astype(np.float16)),
    "double": (FLOATS.astype(np.float64), FLOATS[None]),
    "volume": (np.stack([FLOATS, FLOATS])[None], np.stack([FLOATS, FLOATS])[None]),
    "not contiguous": (GREY[::-1, ::2], GREY[None, ::-1, ::2] / 255),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(kind):
    given, expected = ARRAYS[kind]
    before = given.copy()
    found = as_channels(given)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found += 1
    assert np.array_equal(given, before)  # the caller's array is not the result


PICTURES = {
    "1": (Image.fromarray(BITS), BITS),
    "L": (Image.fromarray(GREY), GREY),
    "LA": (Image.fromarray(alpha(GREY, 255), "LA"), GREY),
    "La": (Image.fromarray(alpha(GREY, 255), "LA").convert("La"), GREY),
    "RGB": (Image.fromarray(COLOUR), COLOUR),
    "RGBA": (Image.fromarray(alpha(COLOUR, 255)), COLOUR),
    "RGBa": (Image.fromarray(alpha(COLOUR, 255)).convert("RGBa"), COLOUR),
    "RGBX": (Image.fromarray(alpha(COLOUR, 0), "RGBX"), COLOUR),
    "I;16": (Image.fromarray(DEEP), DEEP),
    "I;16B": (Image.frombytes("I;16B", (7, 5), DEEP.astype(">u2").tobytes()), DEEP),
    "I": (Image.fromarray(DEEP.astype(np.int32)), DEEP.astype(np.int32)),
    "F": (Image.fromarray(FLOATS), FLOATS),
    "CMYK": (Image.fromarray(COLOUR).convert("CMYK"), np.asarray(Image.fromarray(COLOUR).convert("CMYK").convert("RGB"))),
    "YCbCr": (Image.fromarray(COLOUR).convert("YCbCr"), np.asarray(Image.fromarray(COLOUR).convert("YCbCr").convert("RGB"))),
}


@pytest.mark.parametrize("mode", PICTURES)
def test_a_pillow_image_is_the_array_of_its_pixels(mode):
    picture, pixels = PICTURES[mode]
    assert picture.mode == mode
    assert np.array_equal(as_channels(picture), as_channels(pixels))


def test_palettes_are_their_colours():
    colours = np.array([[0, 0, 0], [255, 0, 10], [7, 8, 9]], np.uint8)[GREY % 3]
    picture = Image.frombytes("P", (7, 5), (GREY % 3).tobytes())
    picture.putpalette([0, 0, 0, 255, 0, 10, 7, 8, 9])
    assert np.array_equal(as_channels(picture), as_channels(colours))
    picture.info["transparency"] = 3  # an index that no pixel has
    assert np.array_equal(as_channels(picture), as_channels(colours))
    picture.info["transparency"] = 1
    refused(picture, "transparent", "flatten")


@pytest.mark.parametrize("array", [GREY, COLOUR, DEEP, BITS, alpha(GREY, 255), alpha(COLOUR, 255)], ids=str)
def test_an_opened_file_is_what_its_path_gives(tmp_path, array):
    path = tmp_path / "a.png"
    Image.fromarray(array, "LA" if array.shape[2:] == (2,) else None).save(path)
    with Image.open(path) as picture:
        assert np.array_equal(as_channels(picture), read_image(path))


def test_a_row_of_colours_is_no_grey_image():
    assert as_channels(Image.fromarray(COLOUR[:1])).shape == (3, 1, 7)
    assert as_channels(Image.fromarray(COLOUR[:3])).shape == (3, 3, 7)


def test_pillow_images_that_have_no_one_meaning_are_refused():
    refused(Image.fromarray(alpha(COLOUR, 254)), "transparent", "flatten")
    refused(Image.fromarray(alpha(GREY, 254), "LA"), "transparent", "flatten")
    refused(Image.new("L", (0, 4)), "empty")
    refused(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "NaN")
    pages, cut = io.BytesIO(), io.BytesIO()
    Image.fromarray(GREY).save(pages, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)])
    refused(Image.open(pages), "2 pages")
    assert as_channels(Image.open(pages).copy()).shape == (1, 5, 7)
    Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8)).save(cut, "PNG")
    refused(Image.open(io.BytesIO(cut.getvalue()[:2000])), "cannot be read")


TENSORS = {
    "grey": (torch.from_numpy(GREY), GREY),
    "16 bits": (torch.from_numpy(DEEP), DEEP),
    "channels first": (torch.from_numpy(FIRST.copy()), FIRST),
    "channels last": (torch.from_numpy(COLOUR), COLOUR),
    "volume": (torch.from_numpy(FLOATS)[None, None], FLOATS[None, None]),
    "with gradient": (torch.from_numpy(FLOATS).requires_grad_(), FLOATS),
    "bits": (torch.from_numpy(BITS), BITS),
    "bfloat16": (torch.ones(5, 7, dtype=torch.bfloat16) / 2, np.full((5, 7), 0.5)),
    "half": (torch.ones(5, 7, dtype=torch.float16) / 2, np.full((5, 7), 0.5)),
    "double": (torch.from_numpy(FLOATS).double(), FLOATS),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors(kind):
    tensor, array = TENSORS[kind]
    assert np.array_equal(as_channels(tensor), as_channels(array))


def test_a_tensor_of_monai():
    from monai.data import MetaTensor

    assert np.array_equal(as_channels(MetaTensor(torch.from_numpy(FLOATS)[None])), FLOATS[None])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_tensor_of_the_gpu():
    assert np.array_equal(as_channels(torch.from_numpy(FLOATS).cuda().requires_grad_()), FLOATS[None])


NO_IMAGES = {
    "list": ([[1, 2], [3, 4]], "type list is no image"),
    "None": (None, "type NoneType is no image"),
    "int": (3, "type int is no image"),
    "NumPy's number": (np.float32(3), "type float32 is no image"),
    "bytes": (b"123", "type bytes is no image"),
    "objects": (np.full((4, 4), None), "object"),
    "complex": (np.zeros((4, 4), np.complex64), "complex64"),
    "strings": (np.full((4, 4), "a"), "<U1"),
    "dates": (np.zeros((4, 4), "datetime64[s]"), "datetime64"),
    "record": (np.zeros((4, 4), [("r", "u1"), ("g", "u1")]), "no image"),
    "empty": (np.zeros((0, 4)), "empty"),
    "no channels": (np.zeros((0, 4, 4)), "empty"),
    "colour of no rows": (np.zeros((0, 4, 3)), "empty"),
    "scalar": (np.array(3.0), "shape ()"),
    "row": (np.zeros(7), "shape (7,)"),
    "five axes": (np.zeros((1, 1, 2, 3, 4)), "shape (1, 1, 2, 3, 4)"),
    "NaN": (np.full((4, 4), np.nan), "NaN"),
    "too large": (np.full((4, 4), 1e300), "infinite"),
    "transparent": (alpha(COLOUR, 254), "transparent"),
    "complex tensor": (torch.zeros(4, 4, dtype=torch.complex64), "complex64"),
    "sparse tensor": (torch.eye(4).to_sparse(), "dense"),
    "tensor without data": (torch.zeros(4, 4, device="meta"), "meta"),
    "empty tensor": (torch.zeros(0, 4), "empty"),
    "tensor of five axes": (torch.zeros(1, 1, 2, 3, 4), "shape (1, 1, 2, 3, 4)"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image_is_refused(kind):
    given, words = NO_IMAGES[kind]
    refused(given, words)
