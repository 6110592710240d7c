import math

import pytest
import torch

from somite.contracts import CodecContract
from somite.diffusion.codec import Logits, OneHot, Pixelwise, Signed, Unit
from somite.errors import InputError

BINARY = [Signed(), Signed(0.5), Unit(), Logits(), Logits(0.9)]


def binary(*space):
    return (torch.rand(3, 1, *space) > 0.5).long()


@pytest.mark.parametrize("codec", BINARY)
@pytest.mark.parametrize("space", [(5, 7), (3, 4, 5)])
def test_binary_round_trip(codec, space):
    mask = binary(*space)
    assert codec.shape(tuple(mask.shape)) == tuple(codec.encode(mask).shape) == tuple(mask.shape)
    assert torch.equal((codec.decode(codec.encode(mask), mask.shape) > 0.5).long(), mask)
    assert torch.equal(codec.probabilities(mask), mask.float())


@pytest.mark.parametrize("space", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_one_hot_against_torch(classes, space):
    labels = torch.randint(classes, (3, 1, *space))
    codec, reference = OneHot(classes), torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).float()
    assert torch.equal(codec.probabilities(labels), reference)
    assert torch.equal(codec.encode(labels), torch.where(reference > 0, 1.0, -1.0))
    assert codec.shape(tuple(labels.shape)) == (3, classes, *space)
    torch.testing.assert_close(codec.decode(codec.encode(labels), labels.shape), reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("codec", "low", "high"), [(Signed(), -1, 1), (Signed(0.5), -0.5, 0.5), (Unit(), 0, 1), (Logits(), -1, 1)])
def test_where_the_codes_lie(codec, low, high):
    assert codec.encode(torch.tensor([[[0, 1]]])).tolist() == [[[low, high]]]


@pytest.mark.parametrize("codec", BINARY)
def test_logits_decode_to_their_sigmoid(codec):
    logits = torch.linspace(-8, 8, 33).view(1, 1, -1)
    torch.testing.assert_close(codec.decode(codec.from_logits(logits), logits.shape), logits.sigmoid(), rtol=1e-5, atol=1e-6)


def test_logits_of_classes_decode_to_their_softmax():
    logits = 3 * torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(OneHot(4).decode(OneHot(4).from_logits(logits), (2, 1, 6, 6)), logits.softmax(1), rtol=1e-4, atol=5e-6)


def test_confidence_is_the_probability_of_a_code():
    for confidence in (0.9, 0.99):
        ends = Logits(confidence).decode(torch.tensor([-1.0, 1.0]), (2,))
        assert ends.tolist() == pytest.approx([1 - confidence, confidence], abs=1e-6)
    assert 0.99 < Logits().decode(torch.tensor(1.5), ()) < 1  # not clamped
    assert Logits().from_logits(torch.tensor(math.log(99.0))) == pytest.approx(1)


@pytest.mark.parametrize("codec", [*BINARY, OneHot(3)])
def test_anything_decodes_to_probabilities(codec):
    z = torch.cat([4 * torch.randn(2, codec.channels, 8, 8), torch.full((1, codec.channels, 8, 8), -1.0)])
    p = codec.decode(z, (3, 1, 8, 8))
    assert p.shape == z.shape
    assert 0 <= p.min() <= p.max() <= 1
    if codec.channels > 1:
        torch.testing.assert_close(p.sum(1), torch.ones(3, 8, 8))


def test_refusals():
    with pytest.raises(InputError, match="amplitude"):
        Signed(0)
    for confidence in (0.5, 1.0, 0.2):
        with pytest.raises(InputError, match="confidence"):
            Logits(confidence)
    with pytest.raises(InputError, match="2 classes"):
        OneHot(1)


class TestSigned(CodecContract):
    def make(self):
        return Signed(0.7)

    def targets(self):
        return [binary(5, 7), binary(3, 4, 5)]


class TestImages(CodecContract):
    """Three channels of any value in [0, 1]: no mask."""

    def make(self):
        return Signed(channels=3)

    def targets(self):
        return [torch.rand(2, 3, 5, 7), torch.rand(1, 3, 3, 4, 5)]


class TestUnit(TestSigned):
    def make(self):
        return Unit()


class TestLogits(TestSigned):
    tolerance = 0.011  # +1 stands for a probability of 0.99

    def make(self):
        return Logits()


class TestOneHot(CodecContract):
    def make(self):
        return OneHot(4)

    def targets(self):
        return [torch.randint(4, (2, 1, 5, 7)), torch.randint(4, (1, 1, 3, 4, 5))]


class Doubled(Pixelwise):
    """A codec of numbers that are no probabilities."""

    def encode(self, target):
        return 2 * target

    def decode(self, z, shape):
        return z / 2


def test_targets_without_logits_are_trained_by_other_predictions():
    with pytest.raises(InputError, match=r"Doubled has no logits; set --method\.predicts eps, x0 or v"):
        Doubled().from_logits(torch.zeros(1, 1, 2, 2))
