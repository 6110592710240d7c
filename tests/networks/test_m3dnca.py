"""Truth: the published update written down plainly, counts, and what a patch must be: a part of the whole."""

import pytest
import torch
from torch.nn import functional as F

from somite.contracts import NetworkContract, alive
from somite.diffusion.codec import OneHot, Signed
from somite.diffusion.methods import Diffusion, FeedForward
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.terms import DiceCE
from somite.errors import InputError
from somite.networks.m3dnca import M3DNCA
from somite.nn.automaton import Expected, Replay
from somite.rng import seeded


class TestM3DNCA(NetworkContract):
    def make(self, dims):
        return M3DNCA(channels=8, hidden=10, updates=2, image_channels=3, dims=dims)


class TestThreeLevelsOfThreeClasses(NetworkContract):
    image_channels, mask_channels = 1, 3
    spaces = {2: [(16, 16), (13, 18), (9, 11)], 3: [(8, 8, 8), (9, 7, 10)]}  # noqa: RUF012

    def make(self, dims):
        several = {"channels": [9, 6, 7], "hidden": [5, 8, 6], "updates": [1, 3, 2], "kernel": [5, 3, 3], "scale": [2, 2]}
        return M3DNCA(levels=3, mask_channels=3, dims=dims, firing=Expected(), **several)


class TestPatches(NetworkContract):
    """In evaluation they are nothing, and in training gradients reach every level through them."""

    image_channels = 1

    def make(self, dims):
        return M3DNCA(channels=8, hidden=10, updates=2, patch=4, dims=dims)


def plain(rule, cells, fired, batch):
    """One published update on (b, c, *s): convolution, concatenation, linear, normalisation, ReLU, linear, mask, image kept."""
    wide = F.pad(cells, [rule.perceive.reach] * 2 * rule.dims, mode="reflect")
    conv = {2: F.conv2d, 3: F.conv3d}[rule.dims]
    near = torch.cat(
        [conv(wide[:, i : i + 1], rule.perceive.weight[i : i + 1], rule.perceive.bias[i : i + 1]) for i in range(rule.channels)], 1
    )
    h = torch.cat([cells, near], 1).movedim(1, -1) @ rule.think.weight.T + rule.think.bias
    axes = list(range(h.ndim - 1)) if batch else [-1]
    h = (h - h.mean(axes, keepdim=True)) / (h.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()
    h = h * rule.before.weight + rule.before.bias
    ds = (h.relu() @ rule.act.weight.T).movedim(-1, 1) * fired[:, None]
    return torch.cat([cells[:, : rule.pinned], (cells + ds)[:, rule.pinned :]], 1)


@pytest.mark.parametrize("norm", ["cell", "batch"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_published_network(dims, norm):
    """Faithful on request: batch statistics at inference too. Whole network, the same masks."""
    network = alive(M3DNCA(channels=6, hidden=10, updates=[2, 3], norm=norm, dims=dims, mask_channels=2)).eval()
    for level in network.levels:
        torch.nn.init.normal_(level.before.weight, 1, 0.3)
        torch.nn.init.normal_(level.before.bias, 0, 0.3)
    space = (12, 10, 9)[:dims]
    image, small = torch.rand(2, 1, *space), tuple(-(-n // 2) for n in space)
    masks = [[torch.rand(2, *size) < 0.5 for _ in range(n)] for size, n in ((small, 2), (space, 3))]
    for level, drawn in zip(network.levels, masks, strict=True):
        level.firing = Replay(iter(drawn * 2))
    cells = torch.cat([{2: F.max_pool2d, 3: F.max_pool3d}[dims](image, 2, ceil_mode=True), torch.zeros(2, 5, *small)], 1)
    for fired in masks[0]:
        cells = plain(network.levels[0], cells, fired, norm == "batch")
    wide = F.interpolate(cells[:, 1:], size=space, mode="nearest")
    cells = torch.cat([image, wide], 1)
    for fired in masks[1]:
        cells = plain(network.levels[1], cells, fired, norm == "batch")
    given = torch.zeros(2, 2, *space), torch.zeros(2).long(), {"image": image}
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(network(*given).value, cells[:, 1:3], rtol=1e-4, atol=1e-5)


def test_published_sizes():
    for norm in ("cell", "batch"):
        network = M3DNCA(norm=norm)
        assert [sum(p.numel() for p in level.parameters()) for level in network.levels] == [8768, 3712]
        assert sum(p.numel() for p in network.parameters()) == 12_480
        assert not list(network.buffers())


def test_octreencas_sizes_and_images():
    """A level: depthwise 3 x 3, 32 to 64, norm, 64 to 16; the published program's last layer lacks the three pinned rows, 16,160 in all.
    Coarse images are one pixel of each block, as torch's nearest interpolation by whole factors takes it."""
    network = M3DNCA(levels=5, kernel=3, updates=[20, 5, 5, 5, 5], downsample="nearest", image_channels=3, dims=2)
    sizes = [sum(p.numel() for p in level.parameters()) for level in network.levels]
    assert sizes == [9 * 16 + 16 + 32 * 64 + 64 + 2 * 64 + 64 * 16] * 5
    assert sum(sizes) - 5 * 3 * 64 == 16_160
    image = torch.rand(1, 3, 48, 64)
    for small, factor in zip(network.pyramid(image), (16, 8, 4, 2, 1), strict=True):
        assert torch.equal(small, image[..., ::factor, ::factor])


@pytest.mark.parametrize(("norm", "alone"), [("cell", True), ("batch", False)])
def test_an_answer_depends_on_its_company_by_batch_statistics_alone(norm, alone):
    network = alive(M3DNCA(channels=6, hidden=10, updates=2, norm=norm, firing=Expected())).eval()
    image = torch.rand(2, 1, 8, 8, 8)

    def answer(rows):
        with torch.no_grad():
            return network(torch.zeros(len(rows), 1, 8, 8, 8), torch.zeros(len(rows)).long(), {"image": image[rows]}).value

    assert torch.allclose(answer([0]), answer([0, 1])[:1], atol=1e-5) == alone


def patched(network, image):
    network.train()
    seen = []
    hooks = [level.register_forward_hook(lambda module, args, out: seen.append((args[0], out))) for level in network.levels]
    out = network(torch.zeros(len(image), 1, *image.shape[2:]), torch.zeros(len(image)).long(), {"image": image})
    for hook in hooks:
        hook.remove()
    return out, seen


@pytest.mark.parametrize(("dims", "space"), [(2, (32, 24)), (2, (27, 33)), (3, (16, 20, 12)), (3, (13, 17, 11))])
@pytest.mark.parametrize("levels", [2, 3])
def test_a_patch_is_a_part_of_the_whole(dims, space, levels):
    """Image and heritage of each level's patch are those of the whole level there, and the chain of patches nests."""
    torch.manual_seed(levels)
    network = alive(M3DNCA(channels=6, hidden=8, updates=2, kernel=3, levels=levels, patch=5, dims=dims))
    for level in network.levels:
        level.update_rate = 0.0  # nothing acts: what a level hands on is what it was given
    network.levels[0].register_forward_hook(lambda module, args, out: torch.rand(out.shape, generator=torch.Generator().manual_seed(9)))
    image = torch.rand(3, 1, *space)
    out, seen = patched(network, image)
    small = 3 if levels == 3 and dims == 3 else 5
    assert all(small <= n <= 5 for n in out.value.shape[2:])
    grid = seen[0][1][:, 1:]
    for given in network.pyramid(image)[1:]:
        grid = F.interpolate(grid, size=given.shape[2:], mode="nearest")
    for row, corner in enumerate(out.corner.tolist()):
        place = [slice(a, a + n) for a, n in zip(corner, out.value.shape[2:], strict=True)]
        assert all(s.stop <= n for s, n in zip(place, space, strict=True))
        last = seen[-1][0][row]
        assert torch.equal(last[:1], image[row][(..., *place)])
        assert torch.equal(last[1:], grid[row][(..., *place)])
    assert torch.equal(out.part(image), seen[-1][0][:, :1])


def test_patches_are_drawn_everywhere_through_the_door_and_for_each_row():
    network, image = M3DNCA(channels=4, hidden=4, updates=1, patch=4, dims=2), torch.rand(256, 1, 16, 16)
    with seeded(0, range(256)):
        corners = patched(network, image)[0].corner
    with seeded(0, range(256)):
        assert torch.equal(patched(network, image)[0].corner, corners)
    assert corners.amin(0).tolist() == [0, 0]
    assert corners.amax(0).tolist() == [12, 12]
    assert len({tuple(c) for c in corners.tolist()}) > 100


@pytest.mark.parametrize("kind", ["feed-forward", "diffusion"])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_loss_is_of_the_patch_alone(kind, classes):
    """What lies outside of the patch has no part in it, what lies inside has; the value is the term's on what was cut by hand."""
    network = alive(M3DNCA(channels=6, hidden=8, updates=1, patch=4, dims=2, mask_channels=classes)).train()
    codec, terms = (OneHot(classes) if classes > 1 else Signed()), {"mask": DiceCE()}
    if kind == "feed-forward":
        method = FeedForward(network, terms, codec)
    else:
        method = Diffusion(network, linear(), terms, DDIM(1), codec, predicts="logits")
    image, mask, kept = torch.rand(2, 1, 16, 16), torch.randint(max(classes, 2), (2, 1, 16, 16)), []
    network.register_forward_hook(lambda module, args, out: kept.append(out))

    def loss(target):
        with seeded(0, "ab"):
            torch.manual_seed(0)
            return method.loss(target, {"image": image})["loss"]

    first = loss(mask)
    out = kept[0]
    here = out.part(torch.arange(2 * 16 * 16).view(2, 1, 16, 16)).flatten()
    inside = torch.zeros(2 * 256).bool().index_fill(0, here, True).view(2, 1, 16, 16)
    other = (mask + 1) % max(classes, 2)
    assert torch.equal(loss(torch.where(inside, mask, other)), first)
    assert not torch.isclose(loss(torch.where(inside, other, mask)), first)
    whole = FeedForward(Given(out.value), terms, codec)
    torch.testing.assert_close(whole.loss(out.part(mask), {})["loss"], first)


class Given(torch.nn.Module):
    """A network that has answered already."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def encode(self, cond):
        return cond

    def forward(self, x, t, cond, state=None):
        from somite.types import Output

        return Output(self.value)


def test_gradients_go_through_the_patch_into_the_coarse_level():
    network, image = alive(M3DNCA(channels=6, hidden=8, updates=1, kernel=3, patch=4, dims=2)), torch.rand(1, 1, 16, 16)
    out, seen = patched(network, image)
    (grad,) = torch.autograd.grad(out.value.sum(), seen[0][1], retain_graph=True)
    touched = grad.abs().sum((0, 1)).nonzero()
    assert len(touched) <= 16  # a patch of 4 and a neighbour around it, at half of the resolution
    assert touched.numel()
    out.value.square().sum().backward()
    assert all(p.grad is not None for p in network.levels[0].parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"updates": [10]}, "updates .*1 numbers for 2 levels"),
        ({"kernel": [7, 3], "levels": 3}, r"kernel \[7, 3\]: 2 numbers for 3 levels"),
        ({"scale": [2, 2]}, "scale .*2 numbers for 1 steps between levels"),
        ({"channels": [16, 1]}, "1 channels a cell cannot hold"),
        ({"hidden": [0, 4]}, "hidden 0: must be at least 1"),
        ({"kernel": 4}, "kernel 4: .*odd"),
        ({"levels": 0}, "levels 0"),
        ({"patch": 1}, "patch 1: .*at least 2"),
        ({"patch": [8, 8]}, "patch .*2 numbers for 3 axes"),
        ({"scale": 0}, "scale 0"),
        ({"arithmetic": "half"}, "bfloat16"),
    ],
)
def test_what_cannot_be_built_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        M3DNCA(**options)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ((1, 1, 2, 9, 9), "2 x 9 x 9 shrink to 1 x 5 x 5 .*--method.network.levels"),
        ((1, 2, 8, 8, 8), "image_channels"),
        ((1, 1, 8, 8), "3D"),
    ],
)
def test_images_that_do_not_fit_are_refused(image, words):
    with pytest.raises(InputError, match=words):
        M3DNCA(channels=4, hidden=4)(torch.zeros(image), torch.zeros(1).long(), {"image": torch.zeros(image)})
