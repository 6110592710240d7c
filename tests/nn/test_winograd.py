"""Winograd's way, against torch's own convolution in float64."""

import pytest
import torch
from torch.nn import functional as F

from somite.nn import winograd

pytestmark = pytest.mark.skipif(not winograd.available(), reason="this torch or processor has no NNPACK")


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def error(x, weight, bias):
    """Of the largest value."""
    found = winograd.winograd(x, weight, bias)
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    assert found.shape == exact.shape
    return float((found - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("size", [(33, 47), (6, 6), (1, 1), (5, 64), (32, 38)])
@pytest.mark.parametrize(("channels", "out"), [(64, 64), (3, 5), (96, 64)])
def test_it_is_the_convolution(size, channels, out):
    assert error(numbers(1, channels, *size), numbers(out, channels, 3, 3), numbers(out)) < 5e-5


def test_without_bias_and_with_an_image_laid_otherwise():
    x, weight = numbers(1, 64, 33, 40), numbers(64, 64, 3, 3)
    assert error(x.to(memory_format=torch.channels_last), weight, None) < 5e-5
    assert error(x.transpose(2, 3), weight, None) < 5e-5


def test_images_of_a_batch_do_not_depend_on_each_other():
    x, weight, bias = numbers(3, 64, 33, 34), numbers(64, 64, 3, 3), numbers(64)
    assert error(x, weight, bias) < 5e-5
    together = winograd.winograd(x, weight, bias)
    assert all(torch.equal(winograd.winograd(one, weight, bias), found) for one, found in zip(x.split(1), together.split(1), strict=True))


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_large_images_in_strips(tiles, monkeypatch):
    x, weight, bias = numbers(2, 8, 31, 20), numbers(6, 8, 3, 3), numbers(6)
    whole = winograd.winograd(x, weight, bias)
    monkeypatch.setattr(winograd, "WORKSPACE", tiles * 14 * 4 * 64 * 4)  # of 4 tiles a row
    assert error(x, weight, bias) < 5e-5
    torch.testing.assert_close(winograd.winograd(x, weight, bias), whole, rtol=0, atol=5e-5 * float(whole.abs().max()))


WIDE = (torch.empty(1, 64, 32, 32), torch.empty(64, 64, 3, 3))


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        (*WIDE, {"padding": 0}),
        (*WIDE, {"stride": (2, 2)}),
        (*WIDE, {"dilation": 2}),
        (*WIDE, {"groups": 2}),
        (*WIDE, {"padding": "same"}),
        (WIDE[0], torch.empty(64, 64, 1, 1), {}),
        (WIDE[0], torch.empty(3, 64, 3, 3), {}),
        (torch.empty(1, 64, 31, 64), WIDE[1], {}),
        (WIDE[0].double(), WIDE[1].double(), {}),
        (WIDE[0][0], WIDE[1], {}),
    ],
)
def test_what_it_leaves_to_torch(x, weight, options):
    assert winograd.fits(*WIDE, padding=1) and winograd.fits(*WIDE, (1, 1), (1, 1), (1, 1), 1)
    assert not winograd.fits(x, weight, **{"padding": (1, 1), **options})


def test_mixed_precision_is_left_to_torch():
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.fits(*WIDE, padding=1)
