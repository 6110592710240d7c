"""Truth: the rule written down plainly, in the style of the official code, and facts A3-A18 of specs/01."""

import pytest
import torch
from torch.nn import functional as F

from somite.errors import InputError
from somite.nn.attention import CBAM
from somite.nn.automaton import Automaton, Expected, Replay, Stochastic
from somite.rng import seeded


def official(rule, cells, fired):
    """One update: separate convolutions p0 and p1, concatenation, both linear maps on all cells, then the mask."""
    c = rule.channels
    u = cells if rule.attention is None else cells + rule.attention(cells)
    conv = {2: F.conv2d, 3: F.conv3d}[rule.dims]
    wide = F.pad(u, [1, 1] * rule.dims, mode="reflect")
    p0 = conv(wide, rule.perceive.weight[:c], rule.perceive.bias[:c])
    p1 = conv(wide, rule.perceive.weight[c:], rule.perceive.bias[c:])
    z = torch.cat([u, p0, p1], 1).movedim(1, -1)
    h = z @ rule.think.weight.T + rule.think.bias
    h = torch.where(h > 0, h, rule.slope * h)
    axes = {"none": None, "cell": [-1], "global": list(range(1, h.ndim))}[rule.norm]
    if axes:
        h = (h - h.mean(axes, keepdim=True)) / (h.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()
    ds = (h @ rule.act.weight.T).movedim(-1, 1)
    ds = torch.cat([torch.zeros_like(ds[:, : rule.pinned]), ds[:, rule.pinned :]], 1)
    return cells + fired[:, None] * ds


def made(channels=6, hidden=10, scale=0.2, **options):
    rule = Automaton(channels, hidden, **options).eval()
    torch.nn.init.normal_(rule.act.weight, std=scale)
    return rule


def replayed(rule, cells, masks):
    rule.firing = Replay(iter(masks))
    return rule(cells, len(masks))


SPACES = [(7, 9), (2, 5), (5, 4, 3), (2, 3, 2)]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("norm", ["cell", "none", "global"])
@pytest.mark.parametrize("cbam", [False, True])
@pytest.mark.parametrize(("pinned", "slope"), [(0, 0.0), (2, 0.01)])
@pytest.mark.parametrize("firing", ["stochastic", "expected"])
def test_three_forms_of_one_rule(space, norm, cbam, pinned, slope, firing):
    dims = len(space)
    rule = made(dims=dims, norm=norm, pinned=pinned, slope=slope, attention=CBAM(6, reduction=2, dims=dims) if cbam else None)
    cells = torch.randn(3, 6, *space)
    masks = [torch.rand(3, *space) < 0.5 if firing == "stochastic" else torch.full((3, *space), 0.5) for _ in range(4)]
    naive = cells
    for fired in masks:
        naive = official(rule, naive, fired)
    before = cells.clone()
    dense = replayed(rule, cells, masks)
    with torch.no_grad():
        local = replayed(rule, cells, masks)
    torch.testing.assert_close(dense, naive, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(local, naive, rtol=1e-5, atol=1e-5)
    assert torch.equal(cells, before)
    assert float((naive - cells).detach().abs().max()) > 0.05


def test_more_acting_cells_than_a_chunk():
    rule, cells, masks = made(), torch.randn(1, 6, 90, 70), [torch.rand(1, 90, 70) < 0.9]
    with torch.no_grad():
        torch.testing.assert_close(replayed(rule, cells, masks), official(rule, cells, masks[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["cell", "none", "global"])
@pytest.mark.parametrize("space", [(7, 6), (4, 5, 3)])
def test_gradients_through_checkpoints(norm, space):
    dims = len(space)
    rule = made(dims=dims, norm=norm, pinned=1, slope=0.01, attention=CBAM(6, 2, dims=dims))
    cells = torch.randn(2, 6, *space, requires_grad=True)
    masks = [torch.rand(2, *space) < 0.5 for _ in range(3)]
    naive = cells
    for fired in masks:
        naive = official(rule, naive, fired)
    inputs = [cells, *rule.parameters()]
    found = torch.autograd.grad(replayed(rule, cells, masks).pow(2).sum(), inputs)
    wanted = torch.autograd.grad(naive.pow(2).sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
        assert other.any()


def test_checkpoints_repeat_their_dropout():
    """The gradient with dropout is that of the forward pass that was made: checked by a directional difference."""
    rule = made(dropout=0.5, scale=0.3).double().train()
    cells, way = torch.randn(2, 6, 5, 5, dtype=torch.float64), torch.randn(2, 6, 5, 5, dtype=torch.float64)

    def value(at):
        torch.manual_seed(5)
        return rule(at, 2).pow(2).sum()

    start = cells.clone().requires_grad_()
    value(start).backward()
    difference = (value(cells + 1e-6 * way) - value(cells - 1e-6 * way)) / 2e-6
    assert float((start.grad * way).sum()) == pytest.approx(float(difference.detach()), rel=1e-4)


def test_fact_a3_a_new_rule_is_the_identity():
    rule = Automaton(6, 10, norm="cell")
    cells = torch.randn(2, 6, 8, 8)
    with torch.no_grad():
        assert torch.equal(rule(cells, 5), cells)
    rule(cells, 2).pow(2).sum().backward()
    grads = {name: float(p.grad.abs().max()) for name, p in rule.named_parameters()}
    assert grads.pop("act.weight") > 0
    assert grads == dict.fromkeys(grads, 0.0)


def changed(rule, updates, side=25, **kwargs):
    """How many cells notice that the central one is different, all cells acting."""
    rule.firing = Expected()
    rule.update_rate = 1.0
    rule.double()
    rule.arithmetic = torch.float64
    cells = torch.randn(1, rule.channels, *[side] * rule.dims, dtype=torch.float64)
    other = cells.clone()
    other[(0, slice(None), *[side // 2] * rule.dims)] += 1
    difference = (rule(cells, updates) - rule(other, updates)).abs().amax(1)[0]
    where = difference.nonzero()
    assert (where - side // 2).abs().max() <= updates or len(where) == side**rule.dims
    return len(where)


@pytest.mark.parametrize(("updates", "cells"), [(1, 9), (2, 25), (5, 121)])
@pytest.mark.parametrize("norm", ["none", "cell"])
def test_fact_a4_receptive_field(updates, cells, norm):
    assert changed(made(norm=norm, scale=0.5, slope=0.01), updates) == cells


def test_receptive_field_in_3d():
    assert changed(made(dims=3, scale=0.5, slope=0.01), 2, side=9) == 125


@pytest.mark.parametrize(("norm", "cbam", "cells"), [("global", False, 225), ("none", True, 225), ("cell", False, 9)])
def test_fact_a5_what_makes_it_global(norm, cbam, cells):
    rule = made(scale=0.5, slope=0.01, norm=norm, attention=CBAM(6, reduction=1) if cbam else None)
    assert changed(rule, 1, side=15) == cells


def test_fact_a8_pinned_channels_stay():
    for pinned in (1, 3):
        rule, cells = made(pinned=pinned, scale=1.0), torch.randn(2, 6, 8, 8)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                out = rule(cells, 7)
            assert torch.equal(out[:, :pinned], cells[:, :pinned])
            assert not torch.allclose(out[:, pinned], cells[:, pinned])


@pytest.mark.parametrize("rate", [1.0, 0.9, 0.5, 0.1, 0.0])
def test_fact_a9_share_of_acting_cells(rate):
    fired = Stochastic().draw(rate, (4, 128, 128), torch.device("cpu"))
    assert float(fired.float().mean()) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 65536) ** 0.5)
    rule = made(update_rate=rate, scale=1.0)
    cells = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        moved = rule(cells, 1) != cells
    acting = moved.any(1)
    assert float(acting.float().mean()) == pytest.approx(rate, abs=0.04)
    assert torch.equal(moved.all(1), acting)  # one decision a cell, shared by its channels


def test_without_acting_cells_nothing_happens():
    rule, cells = made(scale=1.0), torch.randn(2, 6, 8, 8)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.equal(replayed(rule, cells, [torch.zeros(2, 8, 8).bool()] * 2), cells)


def test_fact_a10_symmetry():
    """The interior moves with its input; mirrored input is another input."""
    rule = made(scale=0.5)
    rule.firing, rule.update_rate = Expected(), 1.0
    field = torch.randn(1, 6, 30, 30)
    with torch.no_grad():
        here, there = rule(field[..., :24, :24], 3), rule(field[..., 4:28, 2:26], 3)
        torch.testing.assert_close(here[..., 7:21, 5:21], there[..., 3:17, 3:19], rtol=0, atol=1e-5)
        assert float((rule(field.flip(-1), 3).flip(-1) - rule(field, 3)).abs().max()) > 0.1


@pytest.mark.parametrize("grad", [True, False])
def test_fact_a17_two_and_three_updates_are_five(grad):
    rule, cells = made(), torch.randn(2, 6, 9, 7)
    masks = [torch.rand(2, 9, 7) < 0.5 for _ in range(5)]
    with torch.set_grad_enabled(grad):
        assert torch.equal(replayed(rule, replayed(rule, cells, masks[:2]), masks[2:]), replayed(rule, cells, masks))


def test_fact_a18_products_a_cell():
    for hidden, products in ((512, 204_800), (256, 139_264)):
        rule = Automaton(64, hidden)
        assert sum(p.numel() for p in (rule.perceive.weight, rule.think.weight, rule.act.weight)) == products


@pytest.mark.parametrize("norm", ["cell", "none", "global"])
def test_expected_firing_is_the_mean_of_one_update(norm):
    rule, cells = made(norm=norm, update_rate=0.3), torch.randn(1, 6, 9, 9)
    with torch.no_grad():
        everyone = official(rule, cells, torch.ones(1, 9, 9))
        rule.firing = Expected()
        torch.testing.assert_close(rule(cells, 1), cells + 0.3 * (everyone - cells), rtol=1e-5, atol=1e-5)


def test_training_fires_at_random_whatever_inference_does():
    rule, cells = made(scale=1.0), torch.randn(1, 6, 32, 32)
    rule.firing = Expected()
    share = float((rule.train()(cells, 1) != cells).any(1).float().mean())
    assert 0.4 < share < 0.6
    assert bool((rule.eval()(cells, 1) != cells).any(1).all())


def test_bfloat16_arithmetic_is_close_and_cells_stay_float32():
    rule, cells = made(channels=16, hidden=64, norm="cell", scale=0.05), torch.randn(1, 16, 24, 24)
    masks = [torch.rand(1, 24, 24) < 0.5 for _ in range(10)]
    with torch.no_grad():
        exact = replayed(rule, cells, masks)
        rule.arithmetic = torch.bfloat16
        rough = replayed(rule, cells, masks)
    assert rough.dtype == torch.float32
    error = float((rough - exact).std() / (exact - cells).std())
    assert 0 < error < 0.02


def test_dropout_is_for_training():
    rule, cells = made(dropout=0.5, update_rate=1.0), torch.randn(1, 6, 8, 8)
    with torch.no_grad():
        assert torch.equal(rule(cells, 1), rule(cells, 1))
        assert not torch.equal(rule.train()(cells, 1), rule(cells, 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_given_is_not_changed_in_whatever_layout(layout):
    cells = torch.randn(2, 6, 8, 8).contiguous(memory_format=layout)
    before = cells.clone()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert not torch.equal(made(scale=1.0)(cells, 2), before)
        assert torch.equal(cells, before)


def test_rows_act_by_their_own_stream():
    rule, cells = made(), torch.randn(3, 6, 8, 8)

    def run(rows):
        with torch.no_grad(), seeded(0, ["abc"[i] for i in rows]):
            return rule(cells[rows], 4)

    torch.testing.assert_close(run([2, 1]), run([0, 1, 2])[[2, 1]], rtol=0, atol=1e-6)


def test_a_line_of_cells_is_refused():
    with pytest.raises(InputError, match="neighbours"):
        made()(torch.randn(1, 6, 1, 8), 1)


def test_arithmetic_is_an_argument():
    cells, given = torch.randn(1, 6, 9, 8), {}
    for arithmetic in ("float32", "bfloat16"):
        torch.manual_seed(0)
        rule = made(arithmetic=arithmetic)
        assert rule.arithmetic is getattr(torch, arithmetic)
        with torch.no_grad(), seeded(0, ["a"]):
            given[arithmetic] = rule(cells, 3)
    assert made().arithmetic is torch.float32
    assert given["bfloat16"].dtype == torch.float32
    difference = float((given["bfloat16"] - given["float32"]).abs().max())
    assert 1e-4 < difference < 0.05


@pytest.mark.parametrize(
    ("options", "words"), [({"channels": 0}, "channels 0"), ({"hidden": 0}, "hidden 0"), ({"arithmetic": "float64"}, "bfloat16")]
)
def test_what_cannot_be_built_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        Automaton(**{"channels": 6, "hidden": 10} | options)
