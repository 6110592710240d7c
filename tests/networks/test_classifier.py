import pytest
import torch
from monai.networks.nets import DenseNet121
from monai.networks.nets import ResNet as MonaiResNet

from somite.contracts import NetworkContract
from somite.errors import InputError
from somite.networks.classifier import DenseNet, ResNet
from somite.rng import seeded

NO_T = torch.zeros(1, dtype=torch.long)


class ClassifierContract(NetworkContract):
    def given(self, b, space):
        return torch.randn(b, 3), torch.randint(1000, (b,)), {"image": torch.rand(b, self.image_channels, *space)}


class TestResNet(ClassifierContract):
    spaces = {2: [(32, 32), (13, 18)], 3: [(16, 16, 16), (9, 7, 10)]}  # noqa: RUF012

    def make(self, dims):
        return ResNet(3, [4, 6, 8, 10], [1, 1, 1, 1], stem=1, dims=dims, dropout=0.3, sampled=True)


class TestDenseNet(ClassifierContract):
    # Not 32: its blocks would have two cells along an axis, of which this torch computes wrong bfloat16 gradients on some processors.
    spaces = {2: [(48, 48), (33, 40)], 3: [(48, 48, 48)]}  # noqa: RUF012

    def make(self, dims):
        return DenseNet(3, 8, 4, (1, 1, 1, 1), dims=dims, dropout=0.3)


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_the_published_sizes():
    """11,689,512 and 7,978,856 weights with 1000 classes, as published and in every library."""
    with torch.device("meta"):
        assert count(ResNet(1000)) == 11_689_512
        assert count(DenseNet(1000)) == count(DenseNet121(2, 3, 1000)) == 7_978_856


@pytest.mark.parametrize("stem", [1, 2, 4])
def test_it_is_monais_network(stem):
    ours = ResNet(5, [4, 6, 8, 10], [1, 2, 1, 1], stem=stem)
    kernel, stride = (3, 1) if stem == 1 else (7, 2)
    theirs = MonaiResNet("basic", [1, 2, 1, 1], [4, 6, 8, 10], 2, 3, kernel, stride, stem != 4, num_classes=5, bias_downsample=False)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))  # the same order under other names
    image = torch.rand(3, 3, 40, 36)
    with torch.no_grad():
        found = ours.train()(torch.zeros(3, 5), NO_T.expand(3), ours.encode({"image": image})).value
        torch.testing.assert_close(found, theirs.train()(image))


def test_members_differ_where_dropout_is_sampled_and_an_image_is_encoded_once():
    network = TestResNet().make(2).eval()
    known = network.encode({"image": torch.rand(1, 3, 16, 16)})
    features = known["features"].expand(400, -1)
    with torch.no_grad():
        with seeded(0, range(400)):
            drawn = network(torch.zeros(400, 3), NO_T.expand(400), {"features": features}).value
        network.head.sampled = False
        plain = network(torch.zeros(400, 3), NO_T.expand(400), {"features": features}).value
    assert drawn.std(0).min() > 0
    assert torch.equal(plain[0], plain[1])
    assert ((drawn.mean(0) - plain[0]).abs() < 4 * drawn.std(0) / 20).all()  # dropout keeps the mean of what the last layer sees


def test_bad_options():
    with pytest.raises(InputError, match="four stages"):
        ResNet(channels=[8, 8])
    with pytest.raises(InputError, match="lies in"):
        ResNet(dropout=1.0)
    with pytest.raises(InputError, match="takes 3 image channels, got 1"):
        TestResNet().make(2).encode({"image": torch.rand(1, 1, 8, 8)})
