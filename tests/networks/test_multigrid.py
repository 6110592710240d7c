"""Truth: the update written out with SciPy and NumPy; the cycle by hand; what moves with the image, and how far a cell sees."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from somite.contracts import NetworkContract, alive
from somite.errors import InputError
from somite.networks.multigrid import Multigrid, Rule, evolved

SMALL = {"channels": (4, 6, 8), "hidden": (6, 8, 10), "down": (1, 1, 2), "up": (1, 2)}


class TestMultigrid(NetworkContract):
    # Not 8 in 3D: the coarsest level would be two cells, of which this torch computes wrong bfloat16 gradients on some processors.
    spaces = {2: [(16, 16), (13, 18), (4, 3)], 3: [(12, 12, 12), (9, 7, 10)]}  # noqa: RUF012

    def make(self, dims):
        return Multigrid(**SMALL, dims=dims)


class TestFeedForward(NetworkContract):
    image_channels, mask_channels = 1, 3
    spaces = {2: [(16, 16), (9, 11)], 3: [(12, 12, 12)]}  # noqa: RUF012

    def make(self, dims):
        return Multigrid(**SMALL, image_channels=1, mask_channels=3, noised=False, dims=dims)


def network(**options):
    torch.manual_seed(0)
    return alive(Multigrid(**{**SMALL, **options})).eval()


def test_an_update_is_what_is_written():
    torch.manual_seed(0)
    rule = Rule(3, 5, 2)
    torch.nn.init.normal_(rule.norm.weight)
    torch.nn.init.normal_(rule.norm.bias)
    torch.nn.init.normal_(rule.act.weight)
    cells, told = torch.randn(1, 3, 7, 6), torch.randn(1, 10)
    weight, bias, gain, offset, act = (
        p.detach().double().numpy() for p in (rule.perceive.weight, rule.perceive.bias, rule.norm.weight, rule.norm.bias, rule.act.weight)
    )
    maps = cells[0].double().numpy()
    seen = [sum(correlate(maps[c], weight[k, c], mode="constant") for c in range(3)) + bias[k] for k in range(5)]
    h = np.stack(seen)
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) * gain[:, None, None] + offset[:, None, None]
    scale, shift = told[0].double().numpy().reshape(2, 5, 1, 1)
    h = h * (1 + scale) + shift
    expected = np.einsum("ck,kxy->cxy", act, np.where(h > 0, h, 0.01 * h))
    with torch.no_grad():
        np.testing.assert_allclose(rule(cells, told)[0].numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(evolved(rule, cells, 1, told)[0].numpy(), maps + expected, rtol=1e-4, atol=1e-5)


def test_the_cycle_goes_down_and_up():
    """Two levels, their cells followed by hand: seeded, updated, restricted, updated, prolonged, added, updated, read."""
    made = network(channels=(4, 6), hidden=(6, 8), down=(2, 3), up=1)
    image, x, t = torch.rand(1, 3, 6, 8), torch.randn(1, 1, 6, 8), torch.tensor([40])
    fine, coarse = made.rules
    with torch.no_grad():
        told = made.told(t)
        first = made.seed(torch.cat([image, x], 1))
        for _ in range(2):
            first = first + fine(first, told[0])
        below = made.restrict[0](first)
        for _ in range(3):
            below = below + coarse(below, told[1])
        cells = first + made.prolong[0](below).repeat_interleave(2, 2).repeat_interleave(2, 3)
        cells = cells + fine(cells, told[0])
        torch.testing.assert_close(made(x, t, {"image": image}).value, made.head(cells))


def test_cells_move_with_the_image():
    """By a cell of the coarsest level: what is inside does not depend on where it is. At the borders cells see zeros."""
    made, side = network(), 96
    image, x, t = torch.rand(1, 3, side, side), torch.randn(1, 1, side, side), torch.tensor([999])
    moved = [part.roll((4, 8), (2, 3)) for part in (image, x)]
    with torch.no_grad():
        here, there = made(x, t, {"image": image}).value, made(moved[1], t, {"image": moved[0]}).value
    inside = (..., slice(44, 56), slice(44, 56))
    torch.testing.assert_close(there.roll((-4, -8), (2, 3))[inside], here[inside], rtol=1e-4, atol=1e-5)
    assert (there - here)[inside].abs().max() > 1e-3


def test_more_updates_see_further():
    def reach(**options):
        image = torch.rand(1, 3, 64, 64, requires_grad=True)
        made = network(**options)
        made(torch.zeros(1, 1, 64, 64), torch.tensor([999]), {"image": image}).value[0, 0, 32, 32].backward()
        return int(image.grad.abs().sum((0, 1, 2)).nonzero().max()) - 32

    near, far = reach(down=(1, 1, 1)), reach(down=(1, 1, 3))
    assert far - near == 2 * 4  # two more updates of cells that are four pixels wide


def test_sizes():
    """3 x 3 kernels, norms and last layers of rules; restriction, prolongation, seed, head; and the maps of t."""
    channels, hidden = (12, 16, 24, 32, 32), (18, 24, 36, 48, 48)
    rules = sum(9 * c * h + h + 2 * h + h * c for c, h in zip(channels, hidden, strict=True))
    between = sum(4 * a * b + b + a * b + a for a, b in pairwise(channels))
    plain = rules + between + 9 * 3 * 12 + 12 + 12 + 1
    count = [sum(p.numel() for p in Multigrid(noised=noised).parameters()) for noised in (False, True)]
    assert count == [plain, plain + 9 * 12 + 17 * 8 + 2 * 9 * sum(hidden)]
    assert count[1] == 61_635


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": [8]}, "at least two levels"),
        ({"channels": [8, 0, 4]}, "at least 1"),
        ({"hidden": [8, 8]}, "2 numbers for 3 levels"),
        ({"up": [1, 1, 1]}, "3 numbers for 2 levels above the coarsest"),
        ({"down": 0}, "--method.network.down 0"),
    ],
)
def test_lists_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Multigrid(**{**SMALL, **options})
