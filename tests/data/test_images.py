"""Files are written here by Pillow, SimpleITK or byte by byte, never by somite, and read back by somite."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from somite.data import images
from somite.data.images import read_image, read_labels, write_png
from somite.errors import InputError

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
DEEP = (np.arange(60).reshape(4, 5, 3) * 1000 + 7).astype(np.uint16)


def saved(path: Path, array: np.ndarray, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def saved_deep(path: Path, array: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))
    return path


def raw_png(path: Path, depth: int, colour: int, rows: list[bytes], width: int) -> Path:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def refused(read, path: Path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_and_colour_are_scaled_by_255(tmp_path, suffix):
    grey = read_image(saved(tmp_path / f"g.{suffix}", GREY))
    assert grey.dtype == np.float32
    assert np.array_equal(grey, GREY[None].astype(np.float32) / 255)
    colour = read_image(saved(tmp_path / f"c.{suffix}", COLOUR))
    assert np.array_equal(colour, np.moveaxis(COLOUR, -1, 0).astype(np.float32) / 255)


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = saved(tmp_path / "c.jpg", COLOUR)
    assert np.array_equal(read_image(path) * 255, np.moveaxis(np.asarray(Image.open(path)), -1, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_depth(tmp_path, suffix):
    grey = read_image(saved(tmp_path / f"g.{suffix}", DEEP[..., 0]))
    assert np.array_equal(np.rint(grey[0] * 65535), DEEP[..., 0])
    colour = read_image(saved_deep(tmp_path / f"c.{suffix}", DEEP))
    assert np.array_equal(np.rint(np.moveaxis(colour, 0, -1) * 65535), DEEP)


def test_sixteen_bit_alpha(tmp_path):
    opaque = np.concatenate([DEEP, np.full((4, 5, 1), 65535, np.uint16)], axis=-1)
    assert read_image(saved_deep(tmp_path / "a.png", opaque)).shape == (3, 4, 5)
    opaque[0, 0, 3] = 65000
    refused(read_image, saved_deep(tmp_path / "b.png", opaque), "transparent", "flatten")
    refused(read_image, saved_deep(tmp_path / "c.png", opaque[..., 2:]), "16-bit")


def test_twelve_bit_tiff_is_scaled_by_4095(tmp_path):
    path = tmp_path / "a.tif"
    pixels = bytes([0xFF, 0xF0, 0x00])  # 4095, 0
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 12) + pixels + b"\0" + struct.pack("<H", 9) + entries + b"\0" * 4)
    assert read_image(path).tolist() == [[[1.0, 0.0]]]


def test_one_bit(tmp_path):
    path = saved(tmp_path / "a.png", GREY > 100)
    assert np.array_equal(read_image(path)[0], GREY > 100)
    assert np.array_equal(read_labels(path), GREY > 100)


def test_float_tiff_as_it_stands(tmp_path):
    values = GREY.astype(np.float32) * 3 - 1
    assert np.array_equal(read_image(saved(tmp_path / "a.tif", values))[0], values)
    values[0, 0], values[1, 1] = np.nan, np.inf
    refused(read_image, saved(tmp_path / "b.tif", values), "2 pixels", "NaN")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path, mode):
    opaque = Image.fromarray(COLOUR).convert(mode)
    opaque.save(tmp_path / "a.png")
    expected = np.asarray(opaque)[..., :-1].astype(np.float32) / 255
    assert np.array_equal(np.moveaxis(read_image(tmp_path / "a.png"), 0, -1), expected)
    opaque.putpixel((0, 0), (*opaque.getpixel((0, 0))[:-1], 254))
    opaque.save(tmp_path / "b.png")
    refused(read_image, tmp_path / "b.png", "transparent", "flatten")


def test_palette_is_expanded(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, 1, 0].tolist() == [0, 0, 1]
    image.save(tmp_path / "b.png", transparency=2)
    refused(read_image, tmp_path / "b.png", "transparent")
    image.save(tmp_path / "c.png", transparency=3)
    assert read_image(tmp_path / "c.png").shape == (3, 2, 2)


def test_transparent_colour_of_a_grey_png(tmp_path):
    refused(read_image, saved(tmp_path / "a.png", GREY, transparency=0), "transparent")


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (3, 2), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (3, 2, 3)
    assert read_image(tmp_path / "a.jpg").min() == 1
    Image.new("CMYK", (3, 2)).save(tmp_path / "m.tif")
    refused(read_labels, tmp_path / "m.tif", "CMYK")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    quarters = np.kron(np.array([[0, 80, 160]], np.uint8), np.ones((16, 16), np.uint8))
    saved(path, quarters, exif=exif)
    upright = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
               6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90}[orientation]  # fmt: skip
    assert np.abs(read_image(path)[0] * 255 - upright(quarters)).max() < 3


def test_turned_sixteen_bit_colour_is_refused(tmp_path):
    path = saved_deep(tmp_path / "a.png", DEEP)
    exif = Image.Exif()
    exif[274] = 6
    data = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])
    refused(read_image, path, "rotation")


def test_several_pages_are_refused(tmp_path):
    pages = [Image.fromarray(GREY)] * 3
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    refused(read_image, tmp_path / "a.tif", "3 pages", "NIfTI")
    refused(read_labels, tmp_path / "a.tif", "3 pages")


def test_integers_without_a_white_are_refused_as_images_but_are_labels(tmp_path):
    path = saved(tmp_path / "a.tif", GREY.astype(np.int32))
    refused(read_image, path, "32-bit")
    assert np.array_equal(read_labels(path), GREY)
    refused(read_labels, saved(tmp_path / "b.tif", GREY.astype(np.int32) - 1), "negative")


def test_sixteen_bit_tiff_with_zero_as_white_is_refused(tmp_path):
    path = saved(tmp_path / "a.tif", DEEP[..., 0], tiffinfo={262: 0})
    refused(read_image, path, "0 is white")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_truncation_is_an_input_error(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", noise)
    content = path.read_bytes()
    for keep in (3, 10, 20, 30, 60, len(content) // 2, len(content) - 200):
        path.write_bytes(content[:keep])
        refused(read_image, path)


def test_flipped_bits_never_crash(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for suffix in ("png", "tif", "bmp", "jpg"):
        content = saved(tmp_path / f"a.{suffix}", noise).read_bytes()
        for place in range(0, min(len(content), 400), 3):
            path = tmp_path / f"b.{suffix}"
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            with suppress(InputError):
                read_image(path)


def test_what_is_no_image(tmp_path):
    (tmp_path / "empty.png").touch()
    refused(read_image, tmp_path / "empty.png", "0 bytes")
    (tmp_path / "text.png").write_text("hello, this is no image")
    refused(read_image, tmp_path / "text.png", "not an image")
    refused(read_image, tmp_path / "none.png", "does not exist")
    refused(read_image, tmp_path, "folder")
    Image.fromarray(GREY).save(tmp_path / "gif.png", format="GIF")
    refused(read_image, tmp_path / "gif.png", "not an image")


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", GREY)
    monkeypatch.setattr(images, "PIXELS", 5)
    refused(read_image, path, "too many pixels")


def test_an_image_that_memory_cannot_hold_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOUR)
    monkeypatch.setattr(images, "memory", lambda: 9 * COLOUR.size - 1)
    refused(read_image, path, "more memory")
    monkeypatch.setattr(images, "memory", lambda: 9 * COLOUR.size)
    assert read_image(path).shape == (3, *COLOUR.shape[:2])


def test_more_pixels_than_pillow_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert read_image(saved(tmp_path / "a.png", GREY)).shape == (1, *GREY.shape)
    assert Image.MAX_IMAGE_PIXELS == 5  # which is other programs'


def test_what_memory_gives_out_in_the_middle_of(tmp_path, monkeypatch):
    def full(self):
        raise MemoryError

    monkeypatch.setattr(PngImageFile, "load", full)
    refused(read_image, saved(tmp_path / "a.png", GREY), "more memory")


def test_a_phones_several_pictures_are_the_first(tmp_path):
    image = Image.fromarray(COLOUR)
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (2, 2))])
    assert read_image(tmp_path / "a.jpg").shape == (3, 4, 5)


def test_colour_spaces_without_a_plain_meaning_are_refused(tmp_path):
    Image.new("LAB", (3, 2)).save(tmp_path / "a.tif")
    refused(read_image, tmp_path / "a.tif", "LAB")
    refused(read_labels, tmp_path / "a.tif", "LAB")


def test_labels_are_the_stored_integers(tmp_path):
    assert np.array_equal(read_labels(saved(tmp_path / "a.png", GREY)), GREY)
    assert np.array_equal(read_labels(saved(tmp_path / "b.png", DEEP[..., 0])), DEEP[..., 0])
    assert read_labels(raw_png(tmp_path / "c.png", 4, 0, [b"\x01\x2f"], 4)).tolist() == [[0, 1, 2, 15]]
    assert read_labels(raw_png(tmp_path / "d.png", 2, 0, [b"\x1b"], 4)).tolist() == [[0, 1, 2, 3]]
    assert np.array_equal(read_image(tmp_path / "d.png") * 3, [[[0, 1, 2, 3]]])
    assert np.array_equal(read_labels(saved(tmp_path / "e.tif", GREY.astype(np.float32))), GREY)
    refused(read_labels, saved(tmp_path / "f.tif", GREY + np.float32(0.5)), "no labels")


def palette(path: Path, index: list[list[int]], colours: list[int], **options) -> Path:
    image = Image.fromarray(np.array(index, np.uint8))
    image.putpalette(colours)
    image.save(path, **options)
    return path


def test_palette_labels(tmp_path):
    rgb = [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert read_labels(palette(tmp_path / "a.png", [[0, 1], [2, 1]], rgb)).tolist() == [[0, 1], [2, 1]]
    assert read_labels(palette(tmp_path / "b.png", [[0, 1]], rgb, transparency=0)).tolist() == [[0, 1]]
    white_first = [255, 255, 255, 0, 0, 0]
    assert read_labels(palette(tmp_path / "c.png", [[0, 1], [1, 1]], white_first)).tolist() == [[255, 0], [0, 0]]
    greys = [0, 0, 0, 2, 2, 2, 1, 1, 1]
    assert read_labels(palette(tmp_path / "d.png", [[0, 1, 2]], greys)).tolist() == [[0, 2, 1]]
    with_grey = [0, 0, 0, 128, 0, 0, 128, 128, 128]  # as PASCAL VOC: a grey among colours
    assert read_labels(palette(tmp_path / "e.png", [[0, 2]], with_grey)).tolist() == [[0, 2]]


def test_colour_masks(tmp_path):
    grey = np.repeat(GREY[..., None], 3, axis=-1)
    assert np.array_equal(read_labels(saved(tmp_path / "a.png", grey)), GREY)
    opaque = np.concatenate([grey, np.full((4, 5, 1), 255, np.uint8)], axis=-1)
    assert np.array_equal(read_labels(saved(tmp_path / "b.png", opaque)), GREY)
    opaque[1, 1, 3] = 0
    refused(read_labels, saved(tmp_path / "c.png", opaque), "transparent")
    refused(read_labels, saved(tmp_path / "d.png", COLOUR), "colours")
    deep = np.repeat(DEEP[..., :1], 3, axis=-1)
    assert np.array_equal(read_labels(saved_deep(tmp_path / "e.png", deep)), DEEP[..., 0])


def test_written_png_is_read_by_others(tmp_path):
    for array in (GREY, COLOUR, DEEP[..., 0]):
        write_png(tmp_path / "a.png", array)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), array)
    write_png(tmp_path / "a.png", DEEP)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png"))), DEEP)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    for wrong in (GREY.astype(float), GREY[None, None]):
        with pytest.raises(ValueError, match="uint8 or uint16"):
            write_png(tmp_path / "b.png", wrong)
