"""Counts and behaviour; equality with the released weights is in tests/weights."""

import pytest
import torch
from torch.nn import functional as F

from somite.contracts import NetworkContract, alive
from somite.errors import InputError
from somite.networks.mednca import MedNCA
from somite.nn.automaton import Expected


class TestMedNCA(NetworkContract):
    def make(self, dims):
        return MedNCA(channels=12, hidden=10, updates=3, image_channels=3, dims=dims)


class TestFourClasses(NetworkContract):
    image_channels, mask_channels = 1, 4

    def make(self, dims):
        return MedNCA(channels=12, hidden=10, updates=3, mask_channels=4, dims=dims, firing=Expected())


@pytest.mark.parametrize(("channels", "hidden", "level"), [(16, 128, 12_960), (32, 128, 35_008)])
def test_fact_a2_sizes(channels, hidden, level):
    network = MedNCA(channels=channels, hidden=hidden)
    assert [sum(p.numel() for p in part.parameters()) for part in network.levels] == [level, level]


def states(network, cond):
    """What each automaton is given and returns."""
    kept = []
    for level in network.levels:
        level.register_forward_hook(lambda module, args, out: kept.append((args[0], out)))
    with torch.no_grad():
        out = network(torch.zeros(1, 1, 16, 16), torch.zeros(1).long(), cond)
    return kept, out


def test_fact_a8_the_image_is_pinned_and_the_logits_follow_it():
    network, image = alive(MedNCA(channels=12, hidden=10, image_channels=3)).eval(), torch.rand(1, 3, 16, 16)
    ((coarse, after), (fine, last)), out = states(network, {"image": image})
    small = F.avg_pool2d(image[..., 1:, 1:], 2, 4)  # half-pixel bilinear at a quarter: the central 2 x 2 of each 4 x 4
    torch.testing.assert_close(coarse[:, :3], small)
    assert not coarse[:, 3:].any()
    assert torch.equal(after[:, :3], coarse[:, :3])
    assert torch.equal(fine[:, :3], image)
    assert torch.equal(last[:, :3], image)
    assert torch.equal(fine[:, 3:], after[:, 3:].repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert torch.equal(out.value, last[:, 3:4])


def test_x_and_t_are_ignored():
    network, cond = alive(MedNCA(channels=12, hidden=10, firing=Expected())).eval(), {"image": torch.rand(2, 1, 16, 16)}
    with torch.no_grad():
        one = network(torch.zeros(2, 1, 16, 16), torch.zeros(2).long(), cond).value
        other = network(torch.randn(2, 1, 16, 16), torch.tensor([5, 999]), cond).value
    assert torch.equal(one, other)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="image_channels"):
        MedNCA(channels=8, hidden=4)(torch.zeros(1, 1, 8, 8), torch.zeros(1).long(), {"image": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(InputError, match="channels"):
        MedNCA(channels=2, image_channels=3)


@pytest.mark.parametrize("name", ["channels", "hidden", "updates", "scale"])
@pytest.mark.parametrize("value", [0, -1])
def test_options_below_one_are_named(name, value):
    with pytest.raises(InputError, match=f"^--method.network.{name} {value}: must be at least 1$"):
        MedNCA(**{name: value})


def test_arithmetic_reaches_every_level():
    for arithmetic in ("float32", "bfloat16"):
        assert [level.arithmetic for level in MedNCA(arithmetic=arithmetic).levels] == [getattr(torch, arithmetic)] * 2
