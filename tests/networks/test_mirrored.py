import itertools

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from contracts import NetworkContract
from somite.diffusion.methods import FeedForward
from somite.networks.baselines import DynUNet
from somite.networks.mirrored import Mirrored
from somite.predict.tiling import Windows
from somite.types import Network, Output


class TestMirrored(NetworkContract):
    spaces = {2: [(32, 32), (13, 18)], 3: [(16, 16, 16), (9, 7, 10)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return Mirrored(DynUNet((4, 8, 12), deep_heads=1, dims=dims))


class TestWindows(NetworkContract):
    spaces = {2: [(32, 32), (13, 40)], 3: [(16, 16, 16), (9, 7, 20)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return Windows(DynUNet((4, 8, 12), deep_heads=1, dims=dims), [16] * dims)


class Plain(Network):
    """A convolution of the image and of x; counts how often it is asked, and for what sizes."""

    def __init__(self, dims, size=3):
        super().__init__()
        self.layer = (nn.Conv2d if dims == 2 else nn.Conv3d)(2, 1, size, padding=size // 2)
        self.asked = []

    def encode(self, cond):
        return {"seen": cond["image"] * 2}

    def forward(self, x, t, cond, state=None):
        self.asked.append((len(x), *x.shape[2:]))
        return Output(self.layer(torch.cat([cond["seen"], x], 1)))


def given(*space, b=2):
    return torch.randn(b, 1, *space), torch.zeros(b).long(), {"image": torch.randn(b, 1, *space)}


@pytest.mark.parametrize("space", [(9, 12), (6, 7, 8)], ids=str)
@torch.no_grad()
def test_it_is_the_mean_of_all_mirrorings_mirrored_back(space):
    network = Plain(len(space)).eval()
    x, t, cond = given(*space)
    out = Mirrored(network).eval()(x, t, cond).value
    assert len(network.asked) == 2 ** len(space)
    axes = range(2, 2 + len(space))
    every = [s for n in range(len(space) + 1) for s in itertools.combinations(axes, n)]
    both = torch.cat([cond["image"] * 2, x], 1)
    expected = torch.stack([network.layer(both.flip(s)).flip(s) for s in every]).mean(0)
    assert torch.allclose(out, expected, atol=1e-6)
    assert not torch.allclose(out, network.layer(both), atol=1e-3)


@torch.no_grad()
def test_a_mirrored_image_gives_the_mirrored_answer():
    network = Mirrored(DynUNet((4, 8, 12), deep_heads=1)).eval()
    x, t, cond = torch.zeros(1, 1, 16, 24), torch.zeros(1).long(), {"image": torch.randn(1, 3, 16, 24)}
    straight = network(x, t, cond).value
    assert straight.std() > 1e-4
    for axes in ((2,), (3,), (2, 3)):
        assert torch.allclose(network(x, t, {"image": cond["image"].flip(axes)}).value.flip(axes), straight, atol=1e-5)


def test_in_training_it_is_the_network_alone():
    inner = DynUNet((4, 8, 12), deep_heads=1)
    x, t, cond = torch.zeros(2, 1, 16, 16), torch.zeros(2).long(), {"image": torch.randn(2, 3, 16, 16)}
    for wrapper in (Mirrored(inner), Windows(inner, [8, 8])):
        out, plain = wrapper.train()(x, t, cond), inner.train()(x, t, cond)
        assert torch.equal(out.value, plain.value)
        assert torch.equal(out.aux["deep"], plain.aux["deep"])


@torch.no_grad()
def test_feed_forward_takes_it_like_any_network():
    inner = DynUNet((4, 8, 12), deep_heads=1)
    method = FeedForward(Windows(Mirrored(inner), [16, 16]), {}).eval()
    p = method.sample({"image": torch.randn(2, 3, 40, 20)}, (2, 1, 40, 20))
    assert p.shape == (2, 1, 40, 20)
    assert 0 <= p.min() <= p.max() <= 1


@pytest.mark.parametrize("space", [(40, 29), (20, 18, 14)], ids=str)
@torch.no_grad()
def test_windows_of_a_pointwise_network_change_nothing(space):
    network = Plain(len(space), size=1).eval()
    x, t, cond = given(*space)
    out = Windows(network, [8] * len(space), batch=3).eval()(x, t, cond).value
    assert {asked[1:] for asked in network.asked} == {(8,) * len(space)}
    assert max(asked[0] for asked in network.asked) == 3
    assert torch.allclose(out, network.layer(torch.cat([cond["image"] * 2, x], 1)), atol=1e-5)


@torch.no_grad()
def test_windows_are_blended_as_monai_blends_them():
    """A ramp over the window shows the weights: half-overlapping, Gaussian of an eighth of the window."""

    class Ramp(Network):
        def forward(self, x, t, cond, state=None):
            return Output(torch.linspace(0, 1, x.shape[-1]).expand_as(x) + cond["image"])

    x, t, cond = given(16, 32, b=1)
    out = Windows(Ramp(), [16, 16]).eval()(x, t, cond).value
    blend = SlidingWindowInferer((16, 16), 1, overlap=0.5, mode="gaussian", sigma_scale=0.125)
    expected = blend(cond["image"], lambda w: torch.linspace(0, 1, 16).expand_as(w) + w)
    assert torch.allclose(out, expected, atol=1e-6)
    at = np.arange(16)
    weight = np.exp(-((at - 7.5) ** 2) / (2 * 2.0**2))  # by hand at column 12: windows from 0 and from 8
    ramp, column = np.linspace(0, 1, 16), 12
    by_hand = (ramp[column] * weight[column] + ramp[column - 8] * weight[column - 8]) / (weight[column] + weight[column - 8])
    assert (out - cond["image"])[0, 0, 3, column].item() == pytest.approx(by_hand, abs=1e-3)


@torch.no_grad()
def test_images_smaller_than_the_window_are_mirrored_at_their_far_edge():
    network = Plain(2).eval()
    x, t, cond = given(5, 12)
    out = Windows(network, [8, 8]).eval()(x, t, cond).value
    assert out.shape == (2, 1, 5, 12)
    both = torch.cat([cond["image"] * 2, x], 1)
    wide = nn.functional.pad(both, (0, 0, 0, 3), mode="reflect")
    assert torch.allclose(out[..., 1:4, 1:4], network.layer(wide)[..., 1:4, 1:4], atol=1e-5)
