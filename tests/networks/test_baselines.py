import pytest
import torch
from monai.networks.nets import DynUNet as MonaiDynUNet

from somite.contracts import NetworkContract
from somite.errors import InputError
from somite.networks.baselines import DynUNet
from somite.networks.segformer import SegFormer


class TestDynUNet(NetworkContract):
    spaces = {2: [(32, 32), (13, 18)], 3: [(16, 16, 16), (9, 7, 10)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return DynUNet((4, 8, 12), deep_heads=1, dims=dims)


class TestSegFormer(NetworkContract):
    spaces = {2: [(64, 64), (50, 70)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return SegFormer("b0", dropout=0.0)


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_dynunet_is_monais_nnunet_plan():
    with torch.device("meta"):
        ours = DynUNet((32, 64, 128, 256, 512, 512, 512), mask_channels=2, deep_heads=5)
        theirs = MonaiDynUNet(
            2, 3, 2, [3] * 7, [1] + [2] * 6, [2] * 6, filters=[32, 64, 128, 256, 512, 512, 512], deep_supervision=True, deep_supr_num=5
        )
    assert count(ours) == count(theirs) == 33_463_852


@pytest.mark.parametrize(("variant", "weights"), [("b0", 3_714_658), ("b1", 13_677_762), ("b2", 27_348_162)])
def test_segformer_sizes(variant, weights):
    with torch.device("meta"):
        assert count(SegFormer(variant, mask_channels=2)) == weights


def test_deep_heads_are_trained_and_left_out_at_inference():
    network = DynUNet((4, 8, 12, 16), deep_heads=2)
    given = torch.zeros(2, 1, 32, 32), torch.zeros(2).long(), {"image": torch.rand(2, 3, 32, 32)}
    assert network.train()(*given).aux["deep"].shape == (2, 2, 1, 32, 32)
    assert network.eval()(*given).aux == {}


def test_segformer_starts_from_a_local_folder_but_for_its_head(tmp_path):
    first = SegFormer("b0", mask_channels=3)
    first.segformer.save_pretrained(tmp_path / "weights")
    second = SegFormer("b0", weights=str(tmp_path / "weights"), mask_channels=2)
    ours, theirs = second.segformer.segformer.state_dict(), first.segformer.segformer.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(InputError, match="no such folder"):
        SegFormer("b0", weights=str(tmp_path / "nowhere"))
