"""Codecs of class labels, the term for labels that do not exclude each other, and a diffusion that classifies."""

import pytest
import torch
from torch.nn import functional as F

from somite.contracts import CodecContract, TermContract
from somite.diffusion.classes import AnyOf, OneOf
from somite.diffusion.methods import Diffusion, FeedForward
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import cosine
from somite.diffusion.terms import BinaryCrossEntropy, Clean, CrossEntropy
from somite.errors import InputError
from somite.types import Network, Output


class TestOneOf(CodecContract):
    def make(self):
        return OneOf(4)

    def targets(self):
        return [F.one_hot(torch.randint(4, (b,)), 4).float() for b in (1, 3)]


class TestAnyOf(CodecContract):
    def make(self):
        return AnyOf(3)

    def targets(self):
        return [(torch.rand(b, 3) > 0.5).float() for b in (1, 4)]


class TestBinaryCrossEntropy(TermContract):
    channels = 3

    def make(self):
        return BinaryCrossEntropy()


class Linear(Network):
    """Logits of the mean colour, as far as the noise leaves it."""

    def __init__(self, classes):
        super().__init__()
        self.out = torch.nn.Linear(3 + classes + 1, classes)

    def forward(self, x, t, cond, state=None):
        return Output(self.out(torch.cat([cond["image"].mean((2, 3)), x, t[:, None] / 100], 1)))


@pytest.mark.parametrize(("codec", "term"), [(OneOf(3), CrossEntropy()), (AnyOf(3), BinaryCrossEntropy())])
def test_logits_are_read_as_torch_reads_them(codec, term):
    logits, target = torch.randn(5, 3), F.one_hot(torch.arange(5) % 3, 3).float()
    p = codec.decode(codec.from_logits(logits), (5, 3))
    exclusive = isinstance(codec, OneOf)
    torch.testing.assert_close(p, logits.softmax(1) if exclusive else logits.sigmoid(), rtol=0, atol=2e-6)
    method = FeedForward(Linear(3), {"labels": term}, codec)
    cond = {"image": torch.rand(5, 3, 4, 4)}
    logits = method.network(torch.zeros(5, 3), torch.zeros(5), cond).value
    wanted = F.cross_entropy(logits, target.argmax(1)) if exclusive else F.binary_cross_entropy_with_logits(logits, target)
    assert float(method.loss(target, cond)["loss"].detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_a_diffusion_of_labels_learns_to_classify():
    codec = OneOf(2)
    method = Diffusion(Linear(2), cosine(100), {"clean": Clean()}, DDIM(5), codec, predicts="x0")
    kind = torch.arange(64) % 2
    target, image = F.one_hot(kind, 2).float(), 0.4 * torch.rand(64, 3, 2, 2) + 0.6 * kind[:, None, None, None]
    optimizer = torch.optim.Adam(method.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        method.loss(target, {"image": image})["loss"].backward()
        optimizer.step()
    p = method.sample({"image": image}, (64, 2))
    torch.testing.assert_close(p.sum(1), torch.ones(64))
    assert (p.argmax(1) == target.argmax(1)).float().mean() > 0.95


def test_bad_classes():
    with pytest.raises(InputError, match="at least 2 classes"):
        OneOf(1)
    with pytest.raises(InputError, match=r"shape \(1, 8, 8\) but the codec AnyOf is for labels of 2"):
        AnyOf().shape((4, 1, 8, 8))
