"""Windows give, to the bit, what one window gives; and that is, to rounding, the ordinary form with the same cells acting."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from somite import rng
from somite.contracts import alive
from somite.diffusion.codec import OneHot
from somite.diffusion.methods import Diffusion, FeedForward
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.errors import InputError
from somite.networks.m3dnca import M3DNCA
from somite.networks.mednca import MedNCA
from somite.networks.medsegdiffnca import MedSegDiffNCA, ramp
from somite.nn import tiled
from somite.nn.attention import CBAM
from somite.nn.automaton import Automaton, Expected, Hashed, Replay, Stochastic
from somite.nn.enlarge import enlarged, nearest
from somite.nn.perception import Perception
from somite.nn.tiled import Box, evolved
from somite.rng import seeded

CPU = torch.device("cpu")


def diffusing(**options):
    return MedSegDiffNCA(**{"channels": 16, "hidden": 12, "updates": 2, "image_channels": 1} | options)


NETWORKS = {
    "MedNCA": lambda dims, **o: MedNCA(channels=8, hidden=12, updates=4, dims=dims, **o),
    "M3DNCA": lambda dims, **o: M3DNCA(channels=8, hidden=12, updates=[2, 3], dims=dims, **o),
    "M3DNCA, three levels": lambda dims, **o: M3DNCA(
        channels=[7, 9, 8], hidden=12, updates=[1, 2, 3], kernel=[5, 3, 5], levels=3, dims=dims, **o
    ),
    "one level": lambda dims, **o: diffusing(levels=1, cbam=False, dims=dims, **o),
    "two levels": lambda dims, **o: diffusing(cbam=False, dims=dims, **o),
    "three levels, area": lambda dims, **o: diffusing(levels=3, scale=2, cbam=False, downsample="area", norm="none", dims=dims, **o),
    "levels one by one": lambda dims, **o: diffusing(
        **{"levels": 3, "channels": [14, 9, 12], "hidden": [9, 12, 7], "updates": [1, 2, 1], "kernel": [5, 3, 3], "scale": [2, 3]},
        **{"cbam": False, "norm": "layer", "deep": True, "patch": 8, "dims": dims},
        **o,
    ),
    "one level with CBAM": lambda dims, **o: diffusing(levels=1, dims=dims, **o),
    "two levels with CBAM": lambda dims, **o: diffusing(position=False, dims=dims, **o),
}
SPACES = {2: [(101, 75), (64, 160)], 3: [(37, 18, 21)]}
CASES = [(name, dims, space) for name in NETWORKS for dims, spaces in SPACES.items() for space in spaces]


def made(name, dims, **options):
    torch.manual_seed(1)
    return alive(NETWORKS[name](dims, **options)).eval()


def given(space, rows=2):
    torch.manual_seed(2)
    return torch.randn(rows, 1, *space), torch.randint(1000, (rows,)), {"image": torch.rand(rows, 1, *space)}


def answer(network, x, t, cond):
    with torch.no_grad(), seeded(0, range(len(x))):
        return network(x, t, cond).value


@pytest.mark.parametrize(("name", "dims", "space"), CASES, ids=str)
def test_tiles_give_the_whole_to_the_bit(name, dims, space):
    x, t, cond = given(space)
    whole = answer(made(name, dims, firing=Hashed()), x, t, cond)
    for tile in (1, 40, 64, 1000) if dims == 2 else (5, 1000):
        assert torch.equal(answer(made(name, dims, tile=tile), x, t, cond), whole), tile
    assert not torch.equal(whole[0], whole[1])
    with torch.no_grad(), seeded(0, [1]):  # a row does not know its batch
        alone = made(name, dims, tile=32)(x[1:], t[1:], {"image": cond["image"][1:]}).value
    assert torch.equal(alone[0], whole[1])


@pytest.mark.parametrize("name", ["M3DNCA", "two levels with CBAM"])
@pytest.mark.parametrize("options", [{"firing": Expected()}, {"arithmetic": "bfloat16"}], ids=["expected", "bfloat16"])
def test_so_do_mean_fields_and_half_precision(name, options):
    x, t, cond = given((70, 45))
    one, many = (answer(made(name, 2, tile=tile, **options), x, t, cond) for tile in (100, 32))
    assert torch.equal(one, many)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_so_they_do_in_published_widths_on_several_threads(threads):
    """Products of 1,728 and 512 terms, in which the order of summing shows."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        network = alive(MedSegDiffNCA(updates=2, firing=Hashed())).eval()
        x, t, cond = torch.randn(1, 1, 97, 130), torch.tensor([9]), {"image": torch.rand(1, 3, 97, 130)}
        whole = answer(network, x, t, cond)
        network.tile = 40
        assert torch.equal(answer(network, x, t, cond), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "dims", "space"), [case for case in CASES if case[2] != (64, 160)], ids=str)
def test_one_window_is_the_ordinary_form_with_the_same_cells_acting(name, dims, space):
    x, t, cond = given(space)
    network, plain = made(name, dims, tile=1000), made(name, dims)
    with seeded(0, range(2)):
        keys = [rng.keys(2, CPU) for _ in network.levels]
    updates = network.updates if isinstance(network.updates, list) else [network.updates] * len(network.levels)  # Med-NCA has one number
    sizes = []
    hooks = [level.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[2:])) for level in plain.levels]
    answer(plain, x, t, cond)
    for hook in hooks:
        hook.remove()
    for level, key, count, size in zip(plain.levels, keys, updates, sizes, strict=True):
        origin = [0] * len(size)
        maps = [torch.stack([Hashed().part(0.5, k, update, origin, size, CPU) for k in key]) for update in range(count)]
        level.firing = Replay(iter(maps))
    one, other = answer(network, x, t, cond), answer(plain, x, t, cond)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    assert float(other.std()) > 1e-3


@pytest.mark.parametrize("kind", ["feed-forward", "one step", "three steps"])
def test_whole_samplings_are_bit_equal(kind):
    """x_t and its noise are the whole image's. Three classes in 3D, members by their streams."""
    space, image = (20, 33, 18), torch.rand(1, 1, 20, 33, 18)

    def drawn(**options):
        torch.manual_seed(1)
        network = alive(MedSegDiffNCA(16, 12, 1, 2, True, 2, 1, 3, dims=3, **options))
        codec = OneHot(3)
        if kind == "feed-forward":
            method = FeedForward(network, {}, codec)
        else:
            method = Diffusion(network, linear(), {}, DDIM(1 if kind == "one step" else 3), codec, predicts="logits")
        with torch.no_grad(), seeded(5, ["case/0/0", "case/0/1"]):
            return method.eval().sample({"image": image}, (2, 1, *space), [0, 0])

    whole = drawn(firing=Hashed())
    assert torch.equal(drawn(tile=16), whole)
    assert not torch.equal(whole[0], whole[1])


def test_a_halo_too_narrow_shows(monkeypatch):
    x, t, cond = given((101, 75))
    for name in ("two levels", "two levels with CBAM"):
        whole = answer(made(name, 2, firing=Hashed()), x, t, cond)
        with monkeypatch.context() as changed:
            changed.setattr(Box, "widened", lambda self, by, side, space: self)
            assert not torch.equal(answer(made(name, 2, tile=32), x, t, cond), whole)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("updates", [1, 2])
def test_the_halo_is_the_reach(attention, updates):
    """In double precision: a window as wide as promised is enough, and one cell less is not."""
    torch.manual_seed(0)
    rule = Automaton(6, 8, attention=CBAM(6, 2) if attention else None, perception=Perception(6, 5), firing=Expected(), update_rate=1.0)
    torch.nn.init.normal_(rule.act.weight)
    rule, cells, middle = rule.double().eval(), 3 * torch.randn(6, 96, 20, dtype=torch.float64), 48
    rule.arithmetic = torch.float64

    def after(start, gates=()):
        image = tiled.Image(rule, 0, (96 - start, 20), lambda box: cells[:, start:], None, CPU)
        image.gates = list(gates)
        return image.after(updates, image.whole)[middle - start :], image.gates

    with torch.no_grad():
        whole, gates = after(0)
        for less in (0, 1):
            image = tiled.Image(rule, 0, (96, 20), lambda box: cells, None, CPU)
            part, _ = after(middle - updates * image.reach + less, gates)
            assert (float((part - whole).abs().max()) < 1e-10) == (less == 0)


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that is made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else [out]:
            if isinstance(part, torch.Tensor) and part.untyped_storage().nbytes() // part.element_size() > self.most:
                self.most = part.untyped_storage().nbytes() // part.element_size()
        return out


@pytest.mark.parametrize("cbam", [False, True])
def test_memory_is_a_windows_and_what_is_kept(cbam):
    """Of an image four times as long no tensor is larger than its own maps; without tiles the cells are."""
    torch.manual_seed(0)
    network = alive(MedSegDiffNCA(channels=32, hidden=8, updates=1, levels=2, cbam=cbam, image_channels=1)).eval()
    for level in network.levels:
        level.firing = Hashed()
    most = {}
    for length in (1024, 4096):
        x, t, cond = torch.zeros(1, 1, length, 64), torch.tensor([3]), {"image": torch.rand(1, 1, length, 64)}
        for tile in (64, None):
            network.tile = tile
            with Largest() as found:
                answer(network, x, t, cond)
            most[length, tile] = found.most / (length * 64)
    window = (64 + 2 * 32) * 64 * 32 * 2  # a halo of a block on both sides, and twice for what grows on the way
    assert most[4096, 64] <= max(2.01, window / (4096 * 64))  # coarse cells, 32 / 16 a pixel, or what is read
    assert most[4096, None] >= 32
    assert most[1024, None] >= 32


def test_parts_of_what_is_inherited():
    for have, want in ((5, 19), (8, 32), (7, 13), (25, 97), (3, 3)):
        coarse = torch.randn(2, have, 4)
        wide = torch.nn.functional.interpolate(coarse[None], size=(want, 9), mode="nearest")[0]
        assert nearest(have, want, CPU).tolist() == [int(i * (have / want)) for i in range(want)]
        for a, b in ((0, want), (1, want - 1), (want // 2, want)):
            assert torch.equal(enlarged(coarse, (want, 9), (slice(a, b), slice(2, 7))), wide[:, a:b, 2:7])
    for space in ((9, 31), (5, 17, 40)):
        part = tuple(slice(1, n - 2) for n in space)
        assert torch.equal(ramp(space, CPU, part), ramp(space, CPU)[(0, 0, *part)][None, None])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: diffusing(norm="global", tile=64), "--tile 64: this network's norm is over all cells"),
        (lambda: M3DNCA(norm="batch", tile=64), "--tile 64: this network's norm is over all cells"),
        (lambda: MedNCA(tile=0), "tile 0: must be at least 1"),
        (lambda: MedNCA(tile=64, firing=Stochastic()), "Stochastic firing is drawn for a whole image at once; .*--firing hashed"),
    ],
)
def test_what_has_no_tiles_is_refused(build, words):
    with pytest.raises(InputError, match=words):
        build()


def test_a_line_of_cells_is_refused():
    rule = alive(Automaton(4, 4, firing=Hashed())).eval()
    with pytest.raises(InputError, match="neighbours"), torch.no_grad():
        evolved(rule, 1, (1, 9), 1, lambda row, box: torch.zeros(4, *box.shape), slice(None), 32, CPU)


def test_training_knows_no_tiles():
    network = made("MedNCA", 2, tile=32).train()
    x, t, cond = given((40, 40))
    network(x, t, cond).value.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
