"""Brightness against NumPy."""

import numpy as np
import pytest
import torch

from somite.data.normalise import Centred, Percentile, Unit, Window, ZScore
from somite.errors import InputError


@pytest.fixture(params=[(1, 3, 9, 8), (5, 2, 9, 8), (1, 1, 4, 5, 6)], ids=["image", "slices", "volume"])
def image(request):
    return torch.from_numpy(np.random.default_rng(0).normal(40, 300, request.param).astype(np.float32))


def test_unit_passes_the_unit_interval_and_refuses_the_rest(image):
    inside = torch.rand_like(image)
    assert torch.equal(Unit()(inside, "x"), inside)
    rounded = inside.clone()
    rounded.view(-1)[0] = 1 + 1e-4  # rounding of a resize
    assert Unit()(rounded, "x").max() == 1
    with pytest.raises(InputError, match=r"ct9: values run from .*Window"):
        Unit()(image, "ct9")


def test_centred_is_the_unit_interval_from_minus_one_to_one(image):
    inside = torch.rand_like(image)
    assert np.allclose(Centred()(inside, "x"), inside.numpy() * 2 - 1, atol=1e-6)
    with pytest.raises(InputError, match=r"ct9: values run from .*Window"):
        Centred()(image, "ct9")


def test_percentile_is_of_the_whole_case(image):
    low, high = np.percentile(image.numpy(), (2, 90))
    expected = np.clip((image.numpy() - low) / (high - low), 0, 1)
    assert np.allclose(Percentile(2, 90)(image, "x"), expected, atol=1e-6)


def test_percentile_of_each_slice(image):
    out = Percentile(2, 90, each_slice=True)(image, "x")
    for one, before in zip(out.numpy(), image.numpy(), strict=True):
        low, high = np.percentile(before, (2, 90))
        assert np.allclose(one, np.clip((before - low) / (high - low), 0, 1), atol=1e-6)


def test_a_constant_image_becomes_zero_and_never_nan():
    flat = torch.full((1, 3, 4, 4), 7.0)
    assert not Percentile()(flat, "x").any()
    assert not ZScore()(flat, "x").any()


def test_zscore_is_of_each_channel_over_the_case(image):
    array = image.numpy().astype(np.float64)
    axes = (0, *range(2, array.ndim))
    expected = (array - array.mean(axes, keepdims=True)) / array.std(axes, ddof=1, keepdims=True)
    assert np.allclose(ZScore()(image, "x"), expected, atol=1e-4)


def test_window_is_linear_between_its_ends_and_clipped(image):
    expected = np.clip((image.numpy() + 160) / 400, 0, 1)
    assert np.allclose(Window(-160, 240)(image, "x"), expected, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: Percentile(50, 50), lambda: Percentile(-1, 99), lambda: Percentile(0, 101), lambda: Window(5, 5)])
def test_impossible_limits_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_centred_stretches_what_another_gives():
    image = torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3)
    assert Centred()(image, "a").flatten().tolist() == [-1, -0.5, 1]
    hounsfield = torch.tensor([-1000.0, 37.5, 1000.0]).view(1, 1, 1, 3)
    assert Centred(Window(-175, 250))(hounsfield, "a").flatten().tolist() == [-1, 0, 1]
    with pytest.raises(InputError, match=r"expects images in \[0, 1\]"):
        Centred()(2 * image, "a")
