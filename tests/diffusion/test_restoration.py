"""Spoiling, kind by kind, and a method that learns to undo it."""

from itertools import pairwise

import pytest
import torch

from somite.diffusion.restoration import Restoration, Spoil, bezier, boxes
from somite.diffusion.terms import Clean
from somite.errors import InputError
from somite.networks.ctpretrain import CTPretrain
from somite.rng import seeded

NOTHING = {"bent": 0, "shuffled": 0, "painted": 0}
PICTURE = torch.linspace(-1, 1, 12 * 10 * 8).reshape(1, 1, 12, 10, 8)[..., torch.randperm(8, generator=torch.Generator().manual_seed(0))]


def spoiled(seed=0, **chances):
    with seeded(seed, ["row"]):
        return Spoil(**{**NOTHING, **chances})(PICTURE)


def test_nothing_is_spoiled_where_nothing_is_asked_for():
    assert torch.equal(spoiled(), PICTURE)


def test_brightness_is_bent_by_a_monotone_curve_between_the_corners():
    for seed in range(8):
        found, order = spoiled(seed, bent=1).flatten(), PICTURE.flatten().argsort()
        steps = found[order].diff()
        assert (steps >= -1e-6).all() or (steps <= 1e-6).all()
        assert sorted([float(found[order[0]]), float(found[order[-1]])]) == pytest.approx([-1, 1], abs=1e-5)
        assert not torch.allclose(found.abs(), PICTURE.flatten().abs())


def test_the_curve_is_beziers():
    """Against de Casteljau's construction at a few parameters."""
    a, b, c, d = 0.2, 0.5, 0.1, 0.9
    points = [(0.0, 0.0), (a, c), (b, d), (1.0, 1.0)]
    for s in (0.1, 0.4, 0.8):
        line = points
        while len(line) > 1:
            line = [tuple((1 - s) * p + s * q for p, q in zip(one, two, strict=True)) for one, two in pairwise(line)]
        x, y = line[0]
        found = bezier(torch.tensor([[2 * x - 1]]), iter([b, a, c, d, 0.9]))  # pairs may come in any order
        assert float(found) == pytest.approx(2 * y - 1, abs=2e-3)


def test_shuffling_moves_voxels_and_changes_none():
    found = spoiled(shuffled=1)
    assert torch.equal(found.flatten().sort().values, PICTURE.flatten().sort().values)
    assert not torch.equal(found, PICTURE)


def test_painting_fills_a_few_boxes_or_all_but_these():
    inner = (spoiled(painted=1, outer=0) != PICTURE).float().mean()
    outer = [(spoiled(seed, painted=1, outer=1, holes=1) != PICTURE).float().mean() for seed in range(5)]
    assert 0 < inner < 0.25
    # A box of 0.4 to 0.6 of each side is left.
    assert all(1 - 0.65**3 < share < 1 - 0.3**3 for share in outer)


def test_boxes_lie_inside_and_have_the_sides_that_were_asked_for():
    numbers = iter(torch.rand(6 * 50, generator=torch.Generator().manual_seed(0)).tolist())
    for box in boxes((20, 10, 4), 50, 0.1, 0.5, numbers):
        for one, n in zip(box, (20, 10, 4), strict=True):
            assert 0 <= one.start < one.stop <= n
            assert max(1, round(0.1 * n)) <= one.stop - one.start <= round(0.5 * n)


def test_a_row_is_spoiled_alike_whatever_is_beside_it():
    two = torch.cat([PICTURE, -PICTURE])
    with seeded(0, ["a", "b"]):
        both = Spoil()(two)
    with seeded(0, ["b"]):
        alone = Spoil()(two[1:])
    assert torch.equal(both[1:], alone)


def test_it_is_learned_and_has_no_samples():
    torch.manual_seed(0)
    method = Restoration(CTPretrain(8, 2, coordinates=0, patch=(8, 8, 8)), {"clean": Clean()}, Spoil(bent=0))
    image = torch.rand(4, 1, 2, 2, 2).round()
    for axis in (2, 3, 4):
        image = image.repeat_interleave(4, axis)
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = method.loss(image, {})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0, abs=1e-5)  # the value begins at zero and the target is -1 or 1
    assert sum(losses[-5:]) / 5 < 0.8
    with pytest.raises(InputError, match="train a probe"):
        method.sample({"image": image}, (4, 1, 8, 8, 8))


def test_a_probability_is_one():
    with pytest.raises(InputError, match=r"--method\.spoil\.bent 2"):
        Spoil(bent=2)
