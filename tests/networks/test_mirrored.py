import itertools

import pytest
import torch

from plain import Plain
from somite.contracts import NetworkContract
from somite.networks.baselines import DynUNet
from somite.networks.mirrored import Mirrored


class TestMirrored(NetworkContract):
    spaces = {2: [(32, 32), (13, 18)], 3: [(16, 16, 16), (9, 7, 10)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return Mirrored(DynUNet((4, 8, 12), deep_heads=1, dims=dims))


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
    out, plain = Mirrored(inner).train()(x, t, cond), inner.train()(x, t, cond)
    assert torch.equal(out.value, plain.value)
    assert torch.equal(out.aux["deep"], plain.aux["deep"])
