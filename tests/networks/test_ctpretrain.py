"""No code of the paper is public: facts that follow from its text and from the spec of its FPN, and closed forms."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from somite.contracts import NetworkContract, alive
from somite.diffusion.codec import Codec
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Noise
from somite.errors import InputError
from somite.networks.ctpretrain import CTPretrain
from somite.nn.attention import LinearAttention, SoftmaxAttention
from somite.rng import seeded


class TestCTPretrain(NetworkContract):
    # Levels of 12, 6 and 3 cells: where the first axis has 2, torch 2.13 computes wrong bfloat16 gradients of 3x3x3 convolutions of 16
    # channels or more on processors with avx512_bf16 (oneDNN), now and then NaN.
    spaces = {3: [(12, 12, 12), (5, 1, 6)]}  # noqa: RUF012

    def make(self, dims):
        return CTPretrain(base=8, levels=3, patch=(8, 8, 8))

    def network(self, dims):
        network = super().network(dims)
        torch.nn.init.normal_(network.given)
        return network

    def given(self, b, space):
        return torch.randn(b, 1, *space), torch.randint(1000, (b,)), {"coordinates": 2 * torch.rand(b, 3, *space) - 1}


class Plain(Codec):
    channels = maps = 1

    def shape(self, data):
        return data

    def encode(self, target):
        return target

    def decode(self, z, shape):
        return z


def tiny(**options):
    torch.manual_seed(0)
    network = alive(CTPretrain(**({"base": 8, "levels": 2, "patch": (8, 8, 8)} | options)))
    if network.coordinates:
        torch.nn.init.normal_(network.given)
    return network.eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_numbers_of_weights_follow_from_the_parts():
    with torch.device("meta"):
        network = CTPretrain()
    stages = [16, 32, 64, 128, 256, 512, 256, 128, 64, 32, 16]
    film = sum(2 * (64 * 2 * c + 2 * c) for c in stages)
    attention = sum(4 * c * c + c + 2 * c for c in stages)
    time = 16 * 64 + 64 + 64 * 64 + 64
    out = 2 * 16 + 27 * 16 + 1
    assert count(network) == 47_625_744 + film + attention + time + out + 64
    assert round((47_625_744 + film + time) / 1e6, 2) == 48.02  # as measured of this design by others
    assert round(count(network) / 1e6, 2) == 49.77


def cost(asked):
    """GFLOP, two for a multiplication and an addition; of a forward on a device without numbers."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        asked(torch.empty(1, 1, 128, 128, 32), torch.empty(1, dtype=torch.long), {"coordinates": torch.empty(1, 3, 128, 128, 32)})
    return counter.get_total_flops() / 1e9


def test_the_encoder_alone_costs_half():
    with torch.device("meta"):
        network = CTPretrain()
    assert cost(network) == pytest.approx(121.0, abs=0.1)  # as others measured this design
    assert cost(network.pyramid) == pytest.approx(61.4, abs=0.1)


def kinds(**options):
    with torch.device("meta"):
        fpn = CTPretrain(**options).fpn
    return "".join(type(stage.attention).__name__[0] for stage in [*fpn.left_blocks, fpn.bottom_block])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, "LLLLSS"),
        ({"base": 32}, "LLLLSS"),
        ({"base": 64}, "LLLLSS"),
        ({"base": 128}, "LLLSSS"),  # 1024 tokens, 1024 channels
        ({"patch": (16, 16, 16)}, "LLSSSS"),
        ({"patch": (256, 256, 256)}, "LLLLLS"),  # 4096 for 256, 512 for 512
    ],
)
def test_attention_is_linear_where_there_are_more_tokens_than_channels(options, wanted):
    assert kinds(**options) == wanted


def test_both_ways_have_the_same_attention():
    with torch.device("meta"):
        fpn = CTPretrain().fpn
    assert [type(s.attention) for s in fpn.right_blocks] == [type(s.attention) for s in fpn.left_blocks][::-1]
    assert {type(s.attention) for s in fpn.right_blocks} == {LinearAttention, SoftmaxAttention}


def test_fact_6_an_untrained_network_predicts_nothing_and_its_loss_is_the_noises():
    torch.manual_seed(0)
    network = CTPretrain(base=8, levels=2, patch=(24, 24, 24))
    method = Diffusion(network, linear(), {"noise": Noise()}, DDIM(2), Plain())
    target = 2 * torch.rand(4, 1, 24, 24, 24) - 1
    with torch.no_grad():
        assert float(method.loss(target, {"coordinates": torch.rand(4, 3, 24, 24, 24)})["loss"]) == pytest.approx(1, abs=0.01)
        assert not network(target, torch.tensor([1, 2, 3, 4]), {}).value.any()


@torch.no_grad()
def test_fact_10_coordinates_are_channels_that_may_be_missing():
    network = tiny()
    assert network.fpn.first_conv.in_channels == 1 + 3
    x, t, where = torch.randn(2, 1, 8, 7, 6), torch.tensor([10, 60]), torch.rand(2, 3, 8, 7, 6)
    told = network(x, t, {"coordinates": where}).value
    absent = network(x, t, {}).value
    for nothing in ({}, {"coordinates": None}):
        places, given = network.placed(x, nothing)
        assert places.shape == where.shape
        assert not places.any() and not given.any()
    assert not torch.allclose(told, absent)
    origin = network(x, t, {"coordinates": torch.zeros_like(where)}).value
    assert not torch.allclose(origin, absent)  # to lie at the origin is not to lie nowhere


@torch.no_grad()
def test_a_share_of_the_examples_of_training_goes_without():
    network = tiny(forget=0.4).train()
    where = torch.ones(500, 3, 1, 1, 2)
    kept, given = network.placed(torch.zeros(500, 1, 1, 1, 2), {"coordinates": where})
    assert set(given.tolist()) == {0.0, 1.0}
    assert float(given.mean()) == pytest.approx(0.6, abs=0.08)
    assert torch.equal(kept, where * given.reshape(-1, 1, 1, 1, 1))
    x, t = torch.randn(6, 1, 4, 4, 4), torch.arange(6)
    places = torch.rand(6, 3, 4, 4, 4)
    with seeded(3, "abcdef"):
        _, given = network.placed(x, {"coordinates": places})
    assert 0 < int(given.sum()) < 6
    with seeded(3, "abcdef"):
        trained = network(x, t, {"coordinates": places}).value
    network.eval()
    known, unknown = network(x, t, {"coordinates": places}).value, network(x, t, {}).value
    wanted = torch.where(given.reshape(-1, 1, 1, 1, 1) > 0, known, unknown)
    torch.testing.assert_close(trained, wanted, rtol=1e-5, atol=1e-5)


def test_a_network_may_do_without_coordinates_altogether():
    network, x, t = tiny(coordinates=0), torch.randn(1, 1, 4, 4, 4), torch.tensor([5])
    assert network.fpn.first_conv.in_channels == 1
    assert "given" not in dict(network.named_parameters())
    with torch.no_grad():
        assert torch.equal(network(x, t, {}).value, network(x, t, {"coordinates": torch.rand(1, 3, 4, 4, 4)}).value)


@torch.no_grad()
def test_the_timestep_is_heard_at_every_level():
    network, x = tiny(), torch.randn(1, 1, 8, 8, 8)
    one, other = (network.pyramid(x, torch.tensor([t]), {}, "both") for t in (10, 60))
    assert not any(torch.allclose(a, b) for a, b in zip(one, other, strict=True))
    assert [cells.shape[1] for cells in one] == network.channels("both")


@torch.no_grad()
def test_the_encoder_alone_computes_no_decoder():
    network, asked = tiny(levels=3), []
    for part in (*network.fpn.up_blocks, *network.fpn.skip_blocks, *network.fpn.right_blocks, network.out):
        part.register_forward_hook(lambda *_: asked.append(1))
    x, t = torch.randn(1, 1, 9, 8, 7), torch.tensor([10])
    encoder = network.pyramid(x, t, {})
    assert not asked
    assert [(*cells.shape[1:],) for cells in encoder] == [(8, 9, 8, 7), (16, 5, 4, 4), (32, 3, 2, 2)]
    assert torch.equal(network.pyramid(x, t, {}, "both")[0][:, :8], encoder[0])
    assert asked


def test_what_does_not_fit_is_refused():
    for options, word in (({"base": 12}, "base"), ({"levels": 1}, "levels"), ({"forget": 1.0}, "forget")):
        with pytest.raises(InputError, match=f"--method.network.{word}|levels {options.get('levels')}"):
            CTPretrain(**options)
    network, t = tiny(), torch.tensor([5])
    with pytest.raises(InputError, match=r"--method\.network\.channels"):
        network(torch.zeros(1, 2, 4, 4, 4), t, {})
    with pytest.raises(InputError, match="cut from the volume"):
        network(torch.zeros(1, 1, 4, 4, 4), t, {"coordinates": torch.zeros(1, 3, 4, 4, 5)})
