"""Resizing, brightness and fusion as programs have them equal torch's, NumPy's and `predict`'s."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from somite.data.normalise import Centred, Percentile, Standard, Unit, Window, ZScore
from somite.export.brightness import normalised
from somite.export.fusing import decided, fused, spread
from somite.export.noise import noise
from somite.export.resizing import FreeSizes
from somite.predict.control import Controlled
from somite.predict.ensemble import fused as together
from somite.predict.fusion import Majority, Mean, MeanSquared
from somite.predict.temperature import Tempered

SIZES = [(17, 23), (64, 64), (5, 97), (128, 31), (1, 2), (40, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["nearest", "bilinear", "antialiased", "pooled"])
def test_resizing_is_torchs(size, way):
    x = torch.rand(2, 3, 40, 41)
    ways = {
        "nearest": lambda: F.interpolate(x, size=size, mode="nearest"),
        "bilinear": lambda: F.interpolate(x, size=size, mode="bilinear", align_corners=False),
        "antialiased": lambda: F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True),
        "pooled": lambda: F.adaptive_avg_pool2d(x, size),
    }
    wanted = ways[way]()
    with FreeSizes():
        found = ways[way]()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0 if way == "nearest" else 2e-6)


def test_other_functions_are_torchs_own():
    x = torch.rand(1, 2, 8, 8)
    with FreeSizes():
        assert F.interpolate(x, scale_factor=2.0, mode="nearest").shape == (1, 2, 16, 16)
        assert F.adaptive_avg_pool2d(x, 1).shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    "normalise",
    [Unit(), Percentile(), Percentile(5, 90), ZScore(), Window(-100, 150), Standard([0] * 3, [1] * 3, [0.1] * 3, [2.0] * 3), Centred()],
    ids=["unit", "percentile", "another", "z-score", "window", "standard", "centred"],
)
def test_brightness_is_that_of_each_image(normalise):
    images = torch.rand(3, 3, 19, 33)
    wanted = torch.cat([normalise(image[None], "a") for image in images])
    torch.testing.assert_close(normalised(normalise, images), wanted, rtol=1e-6, atol=1e-6)


def test_a_constant_image_is_zero():
    assert not normalised(Percentile(), torch.full((1, 3, 8, 8), 0.3)).any()


def test_a_controlled_threshold_is_that_of_predict():
    members, fusion = torch.rand(1, 5, 1, 9, 11), Controlled(0.37, "fnr", 0.1, Tempered(1.7))
    wanted = together(None, list(members[0].numpy()), fusion)  # type: ignore[arg-type]
    assert (decided(fusion, fused(fusion, members))[0].numpy() == wanted.mask).all()
    assert (decided(Tempered(1.7, fusion), fused(fusion, members))[0].numpy() == wanted.mask).all()
    assert 0 < wanted.mask.mean() < 1


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("fusion", [Mean(), MeanSquared(), Majority(), Tempered(1.7)], ids=lambda one: type(one).__name__)
def test_fusion_is_that_of_predict(fusion, maps):
    members = torch.rand(2, 5, maps, 9, 11)
    members = members / members.sum(2, keepdim=True) if maps > 1 else members
    for row in range(2):
        wanted = together(None, list(members[row].numpy()), fusion)  # type: ignore[arg-type]
        found = fused(fusion, members)
        assert np.abs(found[row].numpy() - wanted.probability).max() < 1e-6
        assert np.abs(spread(members)[row].numpy() - wanted.spread).max() < 1e-6
        assert (decided(fusion, found)[row].numpy() == wanted.mask).all()


def test_noise_is_normal_and_tied_to_places():
    drawn = noise(7, 4, 2, (60, 50))
    assert drawn.shape == (4, 2, 60, 50) and drawn.dtype == np.float32
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 0.01
    assert (noise(7, 2, 1, (30, 70))[:, :, :, :50] == drawn[:2, :1, :30]).all()
    flat = drawn.reshape(8, -1)
    apart = np.abs(np.corrcoef(np.concatenate([flat, noise(8, 4, 2, (60, 50)).reshape(8, -1)])) - np.eye(16))
    assert apart.max() < 5 / np.sqrt(flat.shape[1])
    for axis in (-1, -2):
        near = np.corrcoef(drawn[..., 1:, 1:].ravel(), np.roll(drawn, 1, axis)[..., 1:, 1:].ravel())[0, 1]
        assert abs(near) < 5 / np.sqrt(drawn.size)
