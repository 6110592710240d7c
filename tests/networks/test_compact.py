"""Truth: MONAI's DynUNet with the same weights; and what x_t and t change, which at the start is nothing."""

import pytest
import torch
from monai.networks.nets import DynUNet as MonaiDynUNet

from somite.contracts import NetworkContract, alive
from somite.errors import InputError
from somite.networks.compact import Compact

CHANNELS = [8, 12, 16, 24, 32]


class TestCompact(NetworkContract):
    spaces = {2: [(32, 32), (13, 18), (4, 3)], 3: [(16, 16, 16), (9, 7, 10)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return Compact((4, 6, 8), dims=dims)


class TestNoised(TestCompact):
    image_channels, mask_channels = 1, 3

    def make(self, dims):
        return Compact((4, 6, 8), 1, 3, noised=True, dims=dims)


def count(network):
    return sum(p.numel() for p in network.parameters())


def monais(dims, channels=CHANNELS, image_channels=3, outputs=1):
    levels = len(channels)
    strides = [1] + [2] * (levels - 1)
    return MonaiDynUNet(dims, image_channels, outputs, [3] * levels, strides, strides[1:], filters=channels)


@pytest.mark.parametrize(("dims", "space"), [(2, (32, 48)), (3, (16, 32, 16))])
@pytest.mark.parametrize("noised", [False, True])
def test_it_is_monais_dynunet_with_the_same_weights(dims, space, noised):
    """Noised, where x_t weighs nothing and the maps of t are as they begin."""
    ours, theirs = Compact(CHANNELS, 3, 2, noised, dims).eval(), monais(dims, outputs=2).eval()
    state = {name: weight for name, weight in theirs.state_dict().items() if not name.startswith("skip_layers.")}
    if noised:
        first = "input_block.conv1.conv.weight"
        state[first] = torch.cat([state[first], torch.zeros_like(state[first][:, :2])], 1)
        state |= {name: weight for name, weight in ours.state_dict().items() if name.startswith(("time.", "films."))}
    ours.load_state_dict(state)
    x, t, image = torch.randn(2, 2, *space), torch.tensor([3, 999]), torch.rand(2, 3, *space)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t, {"image": image}).value, theirs(image), rtol=1e-5, atol=1e-5)
    assert count(ours) == count(theirs) + (2 * 9 * 8 if dims == 2 else 2 * 27 * 8) * noised + 1792 * noised


def test_sizes():
    assert count(Compact()) == count(monais(2)) == 66_209
    assert count(Compact(noised=True)) == 66_209 + 9 * 8 + 17 * 8 + 2 * 9 * sum(CHANNELS)


def test_the_start_is_nnunets():
    """He's normal weights: the variance is 2 / (1 + a^2) / fan in."""
    weight = Compact((64, 64)).bottleneck.conv2.conv.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (1 + 0.01**2) / (9 * 64)) ** 0.5, rel=0.02)


def test_noise_and_timestep_are_seen_where_they_are_asked_for():
    image, x, t = torch.rand(2, 3, 32, 32), torch.randn(2, 1, 32, 32), torch.tensor([10, 10])
    for noised in (False, True):
        torch.manual_seed(0)
        network = alive(Compact((4, 6, 8), noised=noised)).eval()
        with torch.no_grad():
            first, other, later = (network(*given, {"image": image}).value for given in ((x, t), (-x, t), (x, t + 900)))
        assert torch.allclose(first, other) != noised
        assert torch.allclose(first, later) != noised


@pytest.mark.parametrize(
    ("options", "image", "x", "words"),
    [
        ({}, (1, 1, 16, 16), (1, 1, 16, 16), "image_channels"),
        ({}, (1, 3, 16, 16, 16), (1, 1, 16, 16, 16), "2D"),
        ({"noised": True}, (1, 3, 16, 16), (1, 2, 16, 16), "mask_channels"),
    ],
)
def test_what_does_not_fit_is_refused(options, image, x, words):
    with pytest.raises(InputError, match=words):
        Compact((4, 6, 8), **options)(torch.zeros(x), torch.zeros(1).long(), {"image": torch.zeros(image)})


@pytest.mark.parametrize("channels", [[8], [], [8, 0]])
def test_a_unet_of_one_level_is_refused(channels):
    with pytest.raises(InputError, match=r"channels \[.*\]: a U-Net has at least two levels"):
        Compact(channels)
