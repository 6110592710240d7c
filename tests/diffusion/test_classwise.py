"""One class a pass: which examples are drawn, what a perfect network gives, and the official order of things."""

import pytest
import torch

from somite import rng
from somite.diffusion.classwise import OneClassAtATime
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Clean
from somite.sampling import overrides
from somite.types import Network, Output

MASK = torch.tensor([[[[0, 1, 1], [2, 2, 0]]], [[[0, 0, 0], [0, 0, 3]]], [[[0, 0, 0], [0, 0, 0]]]])


class Knows(Network):
    """Draws the class that it is asked for; counts what it encodes."""

    def __init__(self):
        super().__init__()
        self.unused, self.encoded, self.asked = torch.nn.Parameter(torch.zeros(1)), 0, []

    def encode(self, cond):
        self.encoded += "features" not in cond
        return {**cond, "features": cond["image"]}

    def forward(self, x, t, cond, state=None):
        label = cond["class"]
        self.asked.append(label.tolist())
        return Output(2.0 * (cond["image"] == label.view(-1, 1, 1, 1)).float() - 1)


def made(**options):
    return OneClassAtATime(Diffusion(Knows(), linear(), {"clean": Clean()}, DDIM(1), predicts="x0"), classes=4, **options)


def test_a_perfect_network_gives_the_mask_from_one_encoding():
    method = made()
    found = method.sample({"image": MASK.float()}, (3, 1, 2, 3))
    assert torch.equal(found.argmax(1), MASK[:, 0])
    torch.testing.assert_close(found.sum(1), torch.ones(3, 2, 3))
    assert method.network.encoded == 1
    assert method.network.asked == [[1] * 3, [2] * 3, [3] * 3]


def test_the_official_softmax():
    """Class 0 is asked for too, and negated: an image of p0 = 1 where there is no foreground."""
    found = made(official=True).sample({"image": MASK.float()}, (3, 1, 2, 3))
    p = torch.stack([-(MASK[:, 0] == 0).float(), *((MASK[:, 0] == k).float() for k in (1, 2, 3))], 1)
    torch.testing.assert_close(found, p.softmax(1))


@pytest.mark.parametrize(("official", "classes"), [(True, [{0, 1, 2}, {0, 3}, {0}]), (False, [{1, 2, 3}] * 3)])
def test_which_classes_are_trained(official, classes):
    method = made(official=official)
    torch.manual_seed(0)
    drawn = torch.stack([method.drawn(MASK) for _ in range(200)])
    assert [set(column.tolist()) for column in drawn.T] == classes
    if not official:  # half of them of what the mask holds, half of any
        assert float((drawn[:, 1] == 3).float().mean()) == pytest.approx(0.5 + 0.5 / 3, abs=0.1)


def test_the_target_is_the_class_and_class_0_the_foreground(monkeypatch):
    method, seen = made(official=True), []
    monkeypatch.setattr(method.method, "loss", lambda target, cond: seen.append((target, cond["class"])) or {})
    for label in (0, 2):
        monkeypatch.setattr(method, "drawn", lambda target, label=label: torch.full((3,), label))
        method.loss(MASK, {"image": MASK.float()})
    assert torch.equal(seen[0][0], (MASK > 0).long())
    assert torch.equal(seen[1][0], (MASK == 2).long())
    assert seen[1][1].tolist() == [2, 2, 2]


def test_it_trains_and_is_a_function_of_the_seed():
    method = made()
    assert method.loss(MASK, {"image": MASK.float()})["loss"] == 0  # it knows
    assert [name for name in method.state_dict() if "unused" in name] == ["method.network.unused"]  # once
    with rng.seeded(0, "abc"):
        first = method.sample({"image": MASK.float()}, (3, 1, 2, 3))
    with rng.seeded(0, "abc"):
        assert torch.equal(method.sample({"image": MASK.float()}, (3, 1, 2, 3)), first)


def test_options_of_sampling_reach_the_inner_method():
    inner = {"class_path": "Diffusion", "init_args": {"sampler": {"class_path": "DDIM", "init_args": {"steps": 5}}, "readout": None}}
    tree = {"task": {}, "method": {"class_path": "OneClassAtATime", "init_args": {"method": inner, "classes": 3}}}
    assert overrides(tree, steps=2) == {"--method.method.sampler.steps": "2"}
