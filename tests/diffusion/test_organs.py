"""Classes decided one by one."""

import pytest
import torch

from somite.contracts import CodecContract
from somite.diffusion.methods import FeedForward
from somite.diffusion.organs import Independent
from somite.diffusion.probing import ProbeLoss
from somite.errors import InputError
from somite.types import Network, Noised, Output, Prediction


class TestIndependent(CodecContract):
    def make(self):
        return Independent(4)

    def targets(self):
        return [torch.randint(4, (2, 1, *space)) for space in ((5, 6), (3, 4, 5))]


def test_a_class_wins_where_it_is_likelier_than_not_and_likelier_than_the_others():
    logits = torch.tensor([[2.0, -1, -3], [0.4, 0.6, 0.1], [-0.2, -0.1, -4], [-3, -3, 0.01]])[..., None]
    codec = Independent(4)
    p = codec.decode(codec.from_logits(logits), (4, 1, 1))
    torch.testing.assert_close(p.sum(1), torch.ones(4, 1))
    assert p.argmax(1)[:, 0].tolist() == [1, 2, 0, 3]
    torch.testing.assert_close(p[:, 1:] / p[:, 1:].sum(1, keepdim=True), logits.sigmoid() / logits.sigmoid().sum(1, keepdim=True))


def test_the_probes_loss_is_of_the_classes_alone():
    """The sum over organs of single binary losses, written out, whatever the background's share says."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4, 4), torch.randint(4, (2, 1, 4, 4, 4))
    codec = Independent(4)
    x0 = codec.encode(target)
    assert torch.equal(x0 > 0, target == torch.arange(1, 4).view(1, 3, 1, 1, 1))
    ex = Noised(codec.probabilities(target), x0, x0, x0, torch.zeros(2, dtype=torch.long))
    found = ProbeLoss()(Prediction(x0, x0, Output(logits), logits), ex)
    y = (target == torch.arange(1, 4).view(1, 3, 1, 1, 1)).float()
    p = logits.sigmoid()
    bce = -(y * p.log() + (1 - y) * (1 - p).log()).mean((1, 2, 3, 4))
    dice = 1 - 2 * (p * y).sum((2, 3, 4)) / ((p**2).sum((2, 3, 4)) + (y**2).sum((2, 3, 4)) + 1)
    torch.testing.assert_close(found, bce + dice.mean(1))


def test_a_method_trains_on_it():
    class One(Network):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 1)

        def forward(self, x, t, cond, state=None):
            return Output(self.conv(cond["image"]))

    image = torch.tensor([-1.0, 0, 1])[torch.randint(3, (2, 1, 8, 8))]
    method = FeedForward(One(), {"organs": ProbeLoss()}, Independent(3))
    method.loss((image + 1).long(), {"image": image})["loss"].backward()
    assert method.network.conv.weight.grad.any()
    assert method.sample({"image": image}, (2, 1, 8, 8)).shape == (2, 3, 8, 8)


def test_one_class_is_none():
    with pytest.raises(InputError, match="at least 2"):
        Independent(1)
