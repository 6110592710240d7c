"""The probe's loss, equal to the official one (tests/reference/pretrain/README.md)."""

import json
from pathlib import Path

import pytest
import torch

from somite.contracts import TermContract
from somite.diffusion.codec import Signed
from somite.diffusion.methods import FeedForward
from somite.diffusion.probing import ProbeLoss, body_cross_entropy, body_dice_loss
from somite.types import Network, Noised, Output, Prediction

HERE = Path(__file__).parents[1] / "reference" / "pretrain"
WANTED = json.loads((HERE / "summary.json").read_text())["E_losses"]


class TestProbeLoss(TermContract):
    zero = False  # of 15 voxels at most: the 1 in the Dice

    def make(self):
        return ProbeLoss()


@pytest.fixture(scope="module")
def official():
    return torch.load(HERE / "E_losses.pt", weights_only=True)


def test_the_official_losses_in_the_body(official):
    logits, truth, body = official["logits"], official["gt"], official["roi"][:, None].float()
    bce, voxels = body_cross_entropy(logits, truth, body), body.flatten(1).sum(1)
    assert float((bce * voxels).sum() / voxels.sum()) == pytest.approx(WANTED["logs_roi"]["bce"], abs=1e-4)
    dice = body_dice_loss(logits, truth, body).mean(0)
    for k in range(3):
        assert float(dice[k]) == pytest.approx(WANTED["logs_roi"][f"dice_loss_for_cls_{k}"], abs=1e-4)


def test_the_official_loss_without_a_body(official):
    logits, truth = official["logits"], official["gt"]
    pred = Prediction(logits, logits, Output(logits), logits)
    ex = Noised(truth, truth, truth, truth, torch.zeros(2))
    assert float(ProbeLoss()(pred, ex).mean()) == pytest.approx(WANTED["loss_noroi"], abs=1e-4)
    ex.body = official["roi"][:, None]
    assert float(ProbeLoss()(pred, ex).mean()) == pytest.approx(WANTED["loss_roi"], abs=1e-3)  # bodies of 85 and 89 voxels weigh alike here


class Constant(Network):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, x, t, cond, state=None):
        return Output(self.logits)


def test_what_lies_outside_of_the_body_teaches_nothing():
    target, body = torch.rand(2, 1, 4, 4, 4).round(), torch.zeros(2, 1, 4, 4, 4)
    body[:, :, 1:3] = 1
    network = Constant(torch.randn(2, 1, 4, 4, 4))
    FeedForward(network, {"probe": ProbeLoss()}, Signed()).loss(target, {"body": body})["loss"].backward()
    assert not network.logits.grad[body == 0].any()
    assert network.logits.grad[body == 1].all()
    empty = ProbeLoss()(
        Prediction(*(network.logits,) * 2, Output(network.logits), network.logits), Noised(*(target,) * 4, torch.zeros(2), body=body * 0)
    )
    assert torch.equal(empty, torch.ones(2))  # a Dice loss of nothing against nothing, by its formula
