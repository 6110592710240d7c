"""From files to tensors and back. Outside truth: Pillow's luminance and resizing, torch's functional, NumPy's indexing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from somite.data.phantoms import phantom
from somite.data.preprocess import Preprocess
from somite.data.record import Case, Record
from somite.errors import InputError


def record(image: np.ndarray, labels: np.ndarray | None = None, name: str = "case") -> Record:
    return Record(Case(name, (Path(f"{name}.png"),), None, name), name, image.astype(np.float32), labels, None, None, None)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def test_channels_that_fit_are_left_alone():
    image = noise(3, 5, 7)
    assert np.array_equal(Preprocess(channels=3).image(record(image))[0], image)


def test_grey_is_repeated():
    image = noise(1, 5, 7)
    out = Preprocess(channels=3).image(record(image))
    assert out.shape == (1, 3, 5, 7)
    assert all(np.array_equal(out[0, channel], image[0]) for channel in range(3))


def test_colour_becomes_pillows_luminance():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    out = Preprocess(channels=1).image(record(np.moveaxis(pixels, -1, 0) / 255))
    expected = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    assert np.abs(out[0, 0].numpy() * 255 - expected).max() <= 0.51 + 1e-3  # Pillow rounds


@pytest.mark.parametrize(("have", "want"), [(2, 3), (2, 1), (3, 4), (1, 2)])
def test_other_numbers_of_channels_are_refused_by_name(have, want):
    with pytest.raises(InputError, match=f"lesion7.* {have} channels.* takes {want}"):
        Preprocess(channels=want).image(record(noise(have, 8, 8), name="lesion7"))


@pytest.mark.parametrize(
    ("size", "native", "expected"),
    [
        (None, (30, 41), (30, 41)),
        (20, (30, 60), (10, 20)),
        (64, (32, 16), (64, 32)),
        (16, (7, 7), (16, 16)),
        ([24, 50], (30, 41), (24, 50)),
    ],
)
def test_sizes(size, native, expected):
    image, labels = noise(3, *native), np.zeros(native, np.uint8)
    preprocess = Preprocess(size=size)
    assert preprocess.image(record(image)).shape == (1, 3, *expected)
    assert preprocess.mask(record(image, labels)).shape == (1, 1, *expected)


def test_a_size_of_too_few_numbers_is_refused():
    with pytest.raises(InputError, match="3 numbers for 2 axes"):
        Preprocess(size=[8, 8, 8]).image(record(noise(3, 16, 16)))


def test_shrinking_is_pillows_antialiased_bilinear():
    image = noise(1, 60, 48)
    expected = np.asarray(Image.fromarray(image[0]).resize((24, 30), Image.Resampling.BILINEAR))
    out = Preprocess(channels=1, size=[30, 24]).image(record(image))[0, 0].numpy()
    assert np.abs(out - expected).max() < 1e-5


def test_cubic_is_torchs_bicubic_within_the_images_range():
    image = noise(1, 20, 20)
    image[:, :, 10:] = 1  # an edge to overshoot at
    plain = F.interpolate(torch.from_numpy(image)[None], size=(33, 33), mode="bicubic", align_corners=False)
    assert plain.max() > 1.01
    out = Preprocess(channels=1, size=33, cubic=True).image(record(image))
    assert torch.equal(out, plain.clamp(image.min(), image.max()))


def test_volumes_are_resized_trilinearly():
    image = noise(1, 8, 9, 10)
    expected = F.interpolate(torch.from_numpy(image)[None], size=(16, 12, 5), mode="trilinear", align_corners=False)
    assert torch.equal(Preprocess(channels=1, size=[16, 12, 5], dims=3).image(record(image)), expected)


@pytest.mark.parametrize("size", [40, 96, 200])
def test_a_resized_mask_keeps_its_labels_and_its_area(size):
    """Nearest resizing against the half-way contour of the smoothly resized mask."""
    area = half_area = 0
    for index in range(10):
        image, labels = phantom(index, (128, 128), classes=2)
        scaled = np.array([0, 7, 200], np.uint8)[labels]
        out = Preprocess(size=size).mask(record(image, scaled))
        assert out.dtype == torch.int64
        assert set(out.unique().tolist()) == set(np.unique(scaled).tolist())
        half = F.interpolate(torch.from_numpy(labels > 0)[None, None].float(), size=(size, size), mode="bilinear", antialias=True) >= 0.5
        area, half_area = area + int((out > 0).sum()), half_area + int(half.sum())
    assert abs(area - half_area) <= 0.01 * half_area


@pytest.mark.parametrize(("radius", "growth"), [(0.05, 1.19), (0.15, 1.06), (0.30, 1.03)])
def test_the_official_medsegdiff_masks_are_dilated(radius, growth):
    """Against Pillow, which that code resizes with; the growth of discs in 4:3 images is what was measured with it."""
    y, x = np.mgrid[:768, :1024]
    labels = ((x - 500) ** 2 + (y - 390) ** 2 < (radius * 768) ** 2).astype(np.uint8)
    out = Preprocess(size=[256, 256], dilated=True).mask(record(noise(3, 768, 1024), labels))[0, 0].numpy()
    pillow = np.asarray(Image.fromarray(labels * 255).resize((256, 256), Image.Resampling.BILINEAR)) > 0
    assert (out != pillow).mean() < 1e-3
    assert out.sum() / labels.sum() * 12 == pytest.approx(growth, abs=0.02)
    nearest = Preprocess(size=[256, 256]).mask(record(noise(3, 768, 1024), labels))
    assert nearest.sum() / labels.sum() * 12 == pytest.approx(1, abs=0.01)


def test_dilated_masks_are_binary_and_flat():
    volume = record(noise(1, 8, 8, 8), np.zeros((8, 8, 8), np.uint8))
    with pytest.raises(InputError, match="dilated is for binary masks of 2D images"):
        Preprocess(channels=1, dims=3, dilated=True).mask(volume)


def test_a_shrunk_mask_takes_the_middle_pixels():
    labels = np.random.default_rng(2).integers(0, 200, (30, 45)).astype(np.uint8)
    out = Preprocess(size=[10, 9]).mask(record(noise(3, 30, 45), labels))
    assert np.array_equal(out[0, 0], labels[1::3, 2::5])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_becomes_its_slices_and_comes_back(axis):
    image = noise(1, 6, 7, 9)
    labels = np.random.default_rng(1).integers(0, 3, (6, 7, 9)).astype(np.uint8)
    preprocess = Preprocess(channels=1, axis=axis)
    slices, masks = preprocess.image(record(image)), preprocess.mask(record(image, labels))
    assert len(slices) == len(masks) == image.shape[axis + 1]
    for index in range(len(slices)):
        assert np.array_equal(slices[index, 0], image[0].take(index, axis))
        assert np.array_equal(masks[index, 0], labels.take(index, axis))
    for k in (1, 3):
        maps = noise(k, 6, 7, 9)
        stacked = torch.from_numpy(np.moveaxis(maps, axis + 1, 0).copy())  # (n, k, h, w)
        assert np.array_equal(preprocess.restore(stacked, record(image)), maps)


def test_an_image_and_a_volume_for_a_3d_network_come_back():
    flat, deep = noise(2, 11, 13), noise(2, 5, 6, 7)
    assert np.array_equal(Preprocess().restore(torch.from_numpy(flat)[None], record(noise(3, 11, 13))), flat)
    assert np.array_equal(Preprocess(dims=3).restore(torch.from_numpy(deep)[None], record(noise(1, 5, 6, 7))), deep)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_restoring_resizes_each_slice_by_itself(axis):
    native = record(noise(1, 10, 12, 14))
    n, plane = native.shape[axis], [s for i, s in enumerate(native.shape) if i != axis]
    maps = torch.from_numpy(noise(n, 2, 5, 6))
    out = Preprocess(channels=1, size=[5, 6], axis=axis).restore(maps, native)
    assert out.shape == (2, 10, 12, 14)
    for index in range(n):
        expected = F.interpolate(maps[index : index + 1], size=plane, mode="bilinear", align_corners=False)[0]
        assert np.array_equal(out.take(index, axis + 1), expected)


def test_the_slices_of_anisotropic_volumes_keep_their_aspect():
    assert Preprocess(channels=1, size=16, axis=0).image(record(noise(1, 3, 32, 8))).shape == (3, 1, 16, 4)


def test_a_flat_image_for_a_3d_network_is_refused():
    with pytest.raises(InputError, match="scan3: a 2D image"):
        Preprocess(dims=3).image(record(noise(3, 8, 8), name="scan3"))


def volume_of(spacing, shape=(12, 10, 8)):
    image = np.random.default_rng(0).random((1, *shape)).astype(np.float32)
    labels = (image[0] > 0.5).astype(np.uint8)
    return Record(Case("volume", (), None, "volume"), "volume", image, labels, None, spacing, None)


def test_volumes_are_resampled_to_a_spacing_in_3d_and_in_slices():
    record = volume_of((1.0, 2.0, 3.0))
    whole = Preprocess(channels=1, dims=3, spacing_mm=[2.0, 2.0, 1.5])
    assert whole.image(record).shape == (1, 1, 6, 10, 16)
    expected = F.interpolate(torch.as_tensor(record.image)[None], size=(6, 10, 16), mode="trilinear", align_corners=False)
    assert torch.equal(whole.image(record), expected)
    assert whole.mask(record).shape == (1, 1, 6, 10, 16)
    assert whole.restore(whole.image(record), record).shape == (1, 12, 10, 8)
    slices = Preprocess(channels=1, axis=1, spacing_mm=[0.5, 6.0])
    assert slices.image(record).shape == (10, 1, 24, 4)


def test_a_spacing_needs_volumes_and_excludes_a_size():
    with pytest.raises(InputError, match="no size beside"):
        Preprocess(size=64, spacing_mm=[1.0, 1.0])
    with pytest.raises(InputError, match="has no spacing"):
        Preprocess(channels=1, spacing_mm=[1.0, 1.0]).image(flat())


def flat():
    return Record(Case("flat", (), None, "flat"), "flat", np.zeros((1, 8, 8), np.float32), None, None, None, None)
