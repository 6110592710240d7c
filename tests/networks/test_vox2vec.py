"""Equal to the official vox2vec in weights, pyramid, heads and loss (tests/reference/pretrain/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hashed import filled, ramp, state
from somite.contracts import NetworkContract
from somite.diffusion.views import info_nce
from somite.errors import InputError
from somite.networks.vox2vec import Projector, Stage, Vox2Vec
from somite.nn.frozen import Frozen, Start
from somite.nn.pyramid import FPN, at_voxels, doubled
from somite.nn.pyramid_heads import LinearHead, NonLinearHead

HERE = Path(__file__).parents[1] / "reference" / "pretrain"
SUMMARY = json.loads((HERE / "summary.json").read_text())
SHAPES = json.loads((HERE / "state_dict_keys.json").read_text())
WIDTHS = doubled(4, 4)


class TestVox2Vec(NetworkContract):
    image_channels, mask_channels = 2, 3
    # Levels of 12, 6 and 3 cells: where the first axis has 2, torch 2.13 computes wrong bfloat16 gradients on some processors.
    spaces = {3: [(12, 12, 12), (5, 1, 6)]}  # noqa: RUF012

    def make(self, dims):
        return Vox2Vec(base=4, levels=3, image_channels=2, mask_channels=3, head="non-linear")


def reference(name):
    return torch.load(HERE / name, weights_only=True)


def backbone(widths=WIDTHS):
    return FPN(1, widths, lambda level: Stage(widths[level]))


@pytest.fixture(scope="module")
def tiny():
    return filled(backbone())


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def as_summed(found, wanted):
    """Shape, sum, mean absolute value and the first four values."""
    shape, total, size, first = wanted
    assert [*found.shape] == shape
    close(found.flatten()[:4], torch.tensor(first))
    assert float(found.double().abs().mean()) == pytest.approx(size, rel=1e-4)
    assert float(found.double().sum()) == pytest.approx(total, abs=1e-4 * size * found.numel())


@torch.no_grad()
def test_fact_4_the_official_pyramid_and_heads(tiny):
    official = reference("A_fpn_tiny_even.pt")
    pyramid = tiny.pyramid("decoder", official["x"])
    for level, cells in enumerate(pyramid):
        close(cells, official[f"pyr{level}"])
    close(filled(LinearHead(WIDTHS, 5))(pyramid), official["linear"])
    close(filled(NonLinearHead(WIDTHS, 5))(pyramid), official["nonlinear"])


@torch.no_grad()
def test_fact_1_odd_sizes_are_rounded_up_and_cut_back(tiny):
    wanted = SUMMARY["A_odd"]
    pyramid = tiny.pyramid("decoder", ramp(2, 1, 18, 20, 9))
    for level, cells in enumerate(pyramid):
        as_summed(cells, wanted[f"pyr{level}"])
    as_summed(filled(LinearHead(WIDTHS, 5))(pyramid), wanted["linear"])
    as_summed(filled(NonLinearHead(WIDTHS, 5))(pyramid), wanted["nonlinear"])


@torch.no_grad()
def test_in_training_norms_take_the_batchs_statistics():
    official, network = reference("A_fpn_tiny_train.pt"), filled(backbone()).train()
    for level, cells in enumerate(network.pyramid("decoder", official["x"])):
        close(cells, official[f"pyr{level}"])
    close(network.left_blocks[0].layers[0].layers[0].running_mean, official["rm"])


@torch.no_grad()
def test_features_of_single_voxels_are_the_official_ones(tiny):
    official = reference("D_select.pt")
    pyramid = [cells[:1] for cells in tiny.pyramid("decoder", ramp(2, 1, 16, 16, 8))]
    close(at_voxels(pyramid, official["idx"][None])[0], official["sel"])


@pytest.mark.slow
@torch.no_grad()
def test_the_whole_network_gives_the_official_maps():
    network, wanted = backbone(doubled(16, 6)), SUMMARY["B_full_32cube"]
    network.load_state_dict(state(SHAPES["fpn3d_16x6"]))
    pyramid = network.eval().pyramid("decoder", ramp(1, 1, 32, 32, 32))
    for level, cells in enumerate(pyramid):
        as_summed(cells, wanted[f"pyr{level}"])
    for head, name, key in ((LinearHead, "linear_head_13", "linear13"), (NonLinearHead, "nonlinear_head_13", "nonlinear13")):
        made = head(doubled(16, 6), 13)
        made.load_state_dict(state(SHAPES[name]))
        as_summed(made.eval()(pyramid), wanted[key])


def shapes(module):
    return {name: [*tensor.shape] for name, tensor in module.state_dict().items()}


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_facts_2_and_3_names_shapes_and_numbers_of_weights():
    with torch.device("meta"):
        widths = doubled(16, 6)
        network = Vox2Vec(mask_channels=13)
        assert shapes(network.fpn) == SHAPES["fpn3d_16x6"]
        assert len(shapes(network.fpn)) == 340
        assert shapes(network.head) == SHAPES["linear_head_13"]
        assert shapes(NonLinearHead(widths, 13)) == SHAPES["nonlinear_head_13"]
        assert count(network.fpn) == 47_624_448
        assert count(network.head) == 13_117
        assert count(NonLinearHead(widths, 13)) == 968_029
        assert count(FPN(4, widths, lambda i: Stage(widths[i]))) == 47_625_744
        unused = (network.fpn.up_blocks, network.fpn.skip_blocks, network.fpn.right_blocks)
        assert count(network.fpn) - sum(map(count, unused)) == 37_927_648
        assert [count(backbone(doubled(base, 6))) for base in (8, 32)] == [11_911_232, 190_456_832]


@pytest.mark.parametrize(("kind", "times", "weights"), [("decoder", 1, 13_117), ("decoder", 3, 39_325), ("both", 1, 19_565)])
def test_fact_14_a_linear_head_has_a_weight_a_channel_and_class(kind, times, weights):
    with torch.device("meta"):
        channels = [times * c for c in Vox2Vec().channels(kind)]
        assert count(LinearHead(channels, 13)) == sum(channels) * 13 + 13 == weights


def test_fact_1_the_published_patch_has_the_published_pyramid():
    with torch.device("meta"):
        pyramid = Vox2Vec().pyramid(torch.empty(0), torch.zeros(1).long(), {"image": torch.empty(1, 1, 128, 128, 32)})
        assert [(*cells.shape[1:],) for cells in pyramid] == [(16 * 2**i, 128 >> i, 128 >> i, 32 >> i) for i in range(6)]


@torch.no_grad()
def test_fact_15_a_linear_head_is_a_linear_map_of_enlarged_features(tiny):
    pyramid, head = tiny.pyramid("decoder", ramp(1, 1, 18, 20, 9)), filled(LinearHead(WIDTHS, 5))
    enlarged = [cells.repeat_interleave(2**i, 2).repeat_interleave(2**i, 3).repeat_interleave(2**i, 4) for i, cells in enumerate(pyramid)]
    whole = torch.cat([cells[..., :18, :20, :9] for cells in enlarged], 1)
    weight = torch.cat([layer.weight for layer in head.layers], 1)
    torch.testing.assert_close(head(pyramid), F.conv3d(whole, weight, head.layers[0].bias), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_fact_16_the_mean_of_a_linear_heads_answers_is_its_answer_to_the_mean(tiny):
    windows, head = [tiny.pyramid("decoder", ramp(2, 1, 16, 16, 8)[i : i + 1]) for i in (0, 1)], filled(LinearHead(WIDTHS, 5))
    mean = [(a + b) / 2 for a, b in zip(*windows, strict=True)]
    close((head(windows[0]) + head(windows[1])) / 2, head(mean))


def test_fact_13_a_frozen_backbone_stays_as_it_is_while_a_head_learns():
    network = Vox2Vec(base=4, levels=3)
    frozen, head = Frozen(network), LinearHead(network.channels("decoder"), 2)
    both = nn.ModuleList([frozen, head]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.Adam(both.parameters(), 1e-2)
    weight = head.layers[0].weight.clone()
    for _ in range(3):
        pyramid = frozen.module.pyramid(torch.empty(0), torch.zeros(2).long(), {"image": torch.rand(2, 1, 8, 8, 8)})
        optimizer.zero_grad()
        head(pyramid).square().mean().backward()
        optimizer.step()
    assert not torch.equal(head.layers[0].weight, weight)
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@torch.no_grad()
def test_the_encoder_alone_is_its_own_half_and_nothing_more():
    network, asked = Vox2Vec(base=4, levels=3).eval(), []
    given = torch.empty(0), torch.zeros(1).long(), {"image": torch.rand(1, 1, 8, 8, 8)}
    for part in (network.fpn.up_blocks, network.fpn.skip_blocks, network.fpn.right_blocks, [network.head]):
        for module in part:
            module.register_forward_hook(lambda *_: asked.append(1))
    encoder = network.pyramid(*given, side="encoder")
    assert not asked
    decoder, both = network.pyramid(*given), network.pyramid(*given, side="both")
    assert asked
    for level in range(2):
        assert torch.equal(both[level], torch.cat([encoder[level], decoder[level]], 1))
        assert encoder[level].shape == decoder[level].shape
        assert not torch.equal(encoder[level], decoder[level])
    assert torch.equal(both[2], encoder[2])
    assert torch.equal(both[2], decoder[2])
    for side, pyramid in (("encoder", encoder), ("decoder", decoder), ("both", both)):
        assert [cells.shape[1] for cells in pyramid] == network.channels(side)


def test_the_contrastive_loss_is_the_official_one():
    i = torch.arange(48.0).view(6, 8)
    first, second = F.normalize((0.7 * i).cos()), F.normalize((0.7 * i + 0.2).cos())
    assert float(info_nce(first, second)) == pytest.approx(SUMMARY["D_infonce"]["loss"], abs=1e-5)


def test_a_projector_ends_on_the_unit_sphere():
    vectors = torch.randn(5, 60)
    projected = Projector(60, 7)(vectors)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(5))
    with torch.device("meta"):
        assert count(Projector()) == 2 * (1008 * 1008 + 3 * 1008) + 1008 * 128 + 128


def test_training_starts_from_released_weights(tmp_path):
    with torch.no_grad():
        released = filled(backbone())
    torch.save(released.state_dict(), tmp_path / "vox2vec.pt")
    network = Vox2Vec(base=4, levels=4, mask_channels=2, start=Start(str(tmp_path / "vox2vec.pt")))
    assert all(torch.equal(tensor, network.fpn.state_dict()[name]) for name, tensor in released.state_dict().items())
    torch.save({f"method.network.{k}": v for k, v in network.state_dict().items()}, tmp_path / "run.pt")
    again = Vox2Vec(base=4, levels=4, start=Start(str(tmp_path / "run.pt")))
    assert torch.equal(again.fpn.first_conv.weight, released.first_conv.weight)
    for size, words in (((8, 4), "set --method.network.base"), ((4, 5), "5 levels: it lacks left_blocks.3")):
        with pytest.raises(InputError, match=words):
            Vox2Vec(*size, start=Start(str(tmp_path / "vox2vec.pt")))


def test_what_does_not_fit_is_refused():
    given = torch.zeros(1, 1, 8, 8, 8), torch.zeros(1).long()
    for image in (torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, 1, 8, 8)):
        with pytest.raises(InputError, match="image_channels"):
            Vox2Vec(base=4, levels=2)(*given, {"image": image})
    with pytest.raises(InputError, match="levels"):
        Vox2Vec(levels=1)
