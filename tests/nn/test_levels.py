"""Truth: a pyramid written down plainly; what a part must be, a part of the whole; and the whole where a patch is larger."""

import pytest
import torch
from torch.nn import functional as F

from somite.contracts import alive
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Aux, DeepSupervision, DiceCE
from somite.networks.m3dnca import M3DNCA
from somite.networks.medsegdiffnca import MedSegDiffNCA, ramp
from somite.nn.automaton import Replay
from somite.rng import seeded


def plain(rule, cells, fired):
    """One update on (b, c, *s): two dense convolutions, a linear map, a norm with weights, leaky ReLU, a linear map, mask."""
    conv = {2: F.conv2d, 3: F.conv3d}[rule.dims]
    near = conv(F.pad(cells, [rule.perceive.reach] * 2 * rule.dims, mode="reflect"), rule.perceive.weight, rule.perceive.bias)
    h = torch.cat([cells, near], 1).movedim(1, -1) @ rule.think.weight.T + rule.think.bias
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * rule.before.weight + rule.before.bias
    h = torch.where(h > 0, h, 0.01 * h)
    return cells + (h @ rule.act.weight.T).movedim(-1, 1) * fired[:, None]


def made(dims=2, **options):
    torch.manual_seed(0)
    several = {"channels": [12, 9, 11], "hidden": [8, 7, 6], "updates": [1, 3, 2], "kernel": [5, 3, 3], "scale": [3, 2]}
    network = alive(
        MedSegDiffNCA(levels=3, norm="layer", cbam=False, deep=True, dropout=0.0, downsample="area", dims=dims, **several | options)
    )
    for level in network.levels:
        torch.nn.init.normal_(level.before.weight, 1, 0.3)
        torch.nn.init.normal_(level.before.bias, 0, 0.3)
    return network


@pytest.mark.parametrize("space", [(24, 36), (24, 18, 18)])
@pytest.mark.parametrize("training", [False, True])
def test_a_pyramid_of_levels_one_by_one(space, training):
    """Channels, from the design: [estimate | image | x_t | free ... | position | time]; what both levels have is handed on."""
    dims = len(space)
    network = made(dims).train(training)
    x, t, image = torch.randn(2, 1, *space), torch.tensor([100, 900]), torch.rand(2, 3, *space)
    sizes = [tuple(n // 6 for n in space), tuple(n // 2 for n in space), space]
    masks = [[torch.rand(2, *size) < 0.5 for _ in range(n)] for size, n in zip(sizes, (1, 3, 2), strict=True)]
    cells, estimates = torch.zeros(2, 0, *sizes[0]), []
    for rule, size, drawn, width in zip(network.levels, sizes, masks, (12, 9, 11), strict=True):
        pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[dims]
        given = torch.cat([pool(part, space[0] // size[0]) for part in (image, x)], 1)
        own = torch.zeros(2, width, *size)
        shared = min(width, cells.shape[1]) - 2
        if shared > 0:
            for axis, n in enumerate(size, 2):
                cells = cells.repeat_interleave(n // cells.shape[axis], axis)
            own[:, :shared] = cells[:, :shared]
        own[:, 1:5] = given
        own[:, -2] = sum(torch.linspace(0, 1, n).view([-1 if i == axis else 1 for i in range(dims)]) for axis, n in enumerate(size)) / dims
        own[:, -1] = (t / 1000).view(2, *[1] * dims)
        for fired in drawn:
            own = plain(rule, own, fired)
        cells = own
        estimates.append(cells[:, :1])
        if not training:
            rule.firing = Replay(iter(drawn))
    if training:  # which draws for itself: let it draw these
        lots = iter([mask.float() for drawn in masks for mask in drawn])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("somite.nn.automaton.rng.uniform", lambda shape, device: 1 - next(lots))
            out = network(x, t, {"image": image})
        wanted = torch.stack([F.interpolate(one, size=space, mode="nearest") for one in estimates[1::-1]], 1)
        torch.testing.assert_close(out.aux["deep"], wanted, rtol=1e-4, atol=1e-5)
    else:
        with torch.no_grad():
            out = network(x, t, {"image": image})
        assert set(out.aux) == {"rgb"}
    torch.testing.assert_close(out.value, cells[:, :1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.aux["rgb"], cells[:, 1:4], rtol=1e-4, atol=1e-5)
    assert float(out.value.detach().std()) > 1e-3


def seen_by(network, x, image):
    seen = []
    hooks = [level.register_forward_hook(lambda module, args, out: seen.append((args[0], out))) for level in network.levels]
    out = network.train()(x, torch.full((len(x),), 500), {"image": image})
    for hook in hooks:
        hook.remove()
    return out, seen


@pytest.mark.parametrize(("dims", "space"), [(2, (30, 37)), (3, (18, 13, 20))])
def test_a_part_is_a_part_of_the_whole(dims, space):
    """Image, x_t, place and heritage of each part, and what coarser levels said there. Nothing acts, so each hands on what it got."""
    network = made(dims, patch=5, channels=11)
    for level in network.levels:
        level.update_rate = 0.0
    noise = torch.Generator().manual_seed(3)
    network.levels[0].register_forward_hook(lambda module, args, out: torch.rand(out.shape, generator=noise))
    x, image = torch.randn(3, 1, *space), torch.rand(3, 3, *space)
    out, seen = seen_by(network, x, image)
    estimate = seen[0][1][:, :1]
    for depth in (1, 0):
        estimate = F.interpolate(estimate, size=network.reduced(x, depth).shape[2:], mode="nearest")
    place = ramp(space, image.device).expand(3, 1, *space)
    last = seen[-1][0]
    assert all(n <= 5 for n in last.shape[2:])
    for whole, part in ((estimate, last[:, :1]), (image, last[:, 1:4]), (x, last[:, 4:5]), (place, last[:, -2:-1])):
        assert torch.equal(out.part(whole), part)
    for level in range(2):  # both coarser levels say what the coarsest said
        assert torch.equal(out.aux["deep"][:, level], out.part(estimate))
    assert len({tuple(corner) for corner in out.corner.tolist()}) > 1


@pytest.mark.parametrize("patch", [64, [40, 30]])
@pytest.mark.parametrize("kind", [MedSegDiffNCA, M3DNCA])
def test_a_patch_larger_than_the_image_is_the_image(kind, patch):
    image, x = torch.rand(2, 3, 30, 27), torch.randn(2, 1, 30, 27)
    options = {"cbam": False, "dropout": 0.0} if kind is MedSegDiffNCA else {}
    answers = []
    for patched in (patch, None):
        torch.manual_seed(0)
        network = alive(
            kind(channels=9, hidden=8, updates=2, levels=2, kernel=3, image_channels=3, dims=2, update_rate=1.0, patch=patched, **options)
        )
        answers.append(network.train()(x, torch.tensor([5, 900]), {"image": image}))
    assert not answers[0].corner.any()
    assert answers[0].value.shape == x.shape
    assert torch.equal(answers[0].value, answers[1].value)


def test_one_training_step_on_patches_reaches_the_coarsest_level():
    """Heads, RGB loss and noise in one method: all cut to the part."""
    network = made(patch=6, channels=11)
    terms = {"mask": DiceCE(), "deep": DeepSupervision(), "rgb": Aux("rgb")}
    method = Diffusion(network, linear(), terms, DDIM(1), predicts="logits")
    with seeded(0, "ab"):
        losses = method.loss(torch.randint(2, (2, 1, 24, 24)), {"image": torch.rand(2, 3, 24, 24)})
    losses["loss"].backward()
    assert set(losses) == {"loss", "mask", "deep", "rgb"}
    assert all(p.grad is not None and p.grad.any() for p in network.levels[0].parameters())
