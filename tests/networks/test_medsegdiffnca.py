"""Counts, layout and reach: specs/01, sections 1 and 6."""

import pytest
import torch

from somite.contracts import NetworkContract, alive
from somite.errors import InputError
from somite.networks.medsegdiffnca import MedSegDiffNCA
from somite.nn.automaton import Expected

VARIANTS = {
    "basic": ({"levels": 1, "cbam": False, "hidden": 256}, 139_648),
    "basic_512": ({"levels": 1, "cbam": False}, 205_440),
    "cbam": ({"levels": 1}, 206_118),
    "multi": ({"cbam": False}, 410_880),
    "multi_cbam": ({}, 412_236),
    "multi_256": ({"cbam": False, "hidden": 256}, 279_296),
}


class Contract(NetworkContract):
    options = {}  # noqa: RUF012

    def make(self, dims):
        return MedSegDiffNCA(channels=16, hidden=12, updates=2, dims=dims, dropout=0.1, **self.options)


class TestBasic(Contract):
    options = {"levels": 1, "cbam": False}  # noqa: RUF012


class TestCBAM(Contract):
    options = {"levels": 1}  # noqa: RUF012


class TestMulti(Contract):
    options = {"cbam": False, "norm": "none", "downsample": "area", "position": False}  # noqa: RUF012


class TestMultiCBAM(Contract):
    pass


class TestMultiCBAMWithGlobalNorm(Contract):
    options = {"norm": "global"}  # noqa: RUF012


class TestFourClassesOfGreyImages(Contract):
    image_channels, mask_channels = 1, 4
    options = {"image_channels": 1, "mask_channels": 4}  # noqa: RUF012


class TestLevelsOneByOne(Contract):
    """With heads, which in training are aux["deep"]; wider, narrower and wider again."""

    def make(self, dims):
        several = {"channels": [12, 9, 11], "hidden": [8, 7, 6], "updates": [1, 3, 2], "kernel": [5, 3, 3], "scale": [2, 2]}
        return MedSegDiffNCA(levels=3, norm="layer", cbam=False, deep=True, dropout=0.0, dims=dims, **several)


class TestPatches(Contract):
    """In evaluation they are nothing, and in training gradients reach every level through them."""

    options = {"cbam": False, "deep": True, "patch": 4}  # noqa: RUF012


@pytest.mark.parametrize(("options", "count"), VARIANTS.values(), ids=VARIANTS)
def test_fact_a1_published_sizes(options, count):
    assert sum(p.numel() for p in MedSegDiffNCA(**options).parameters()) == count


def test_fact_a3_at_the_start_the_estimate_is_zero_and_the_image_itself():
    for levels in (1, 2):
        network, image = MedSegDiffNCA(channels=16, hidden=12, levels=levels).eval(), torch.rand(2, 3, 16, 16)
        out = network(torch.randn(2, 1, 16, 16), torch.tensor([3, 900]), {"image": image})
        assert not out.value.any()
        assert torch.equal(out.aux["rgb"], image)


def test_channels_at_the_start():
    """Specs 1.2: zeros, R, G, B, x_t, free ..., (i + j) / (2 (N - 1)), t."""
    n, given, t = 9, torch.randn(2, 4, 9, 9), torch.tensor([0.25, 0.9])
    cells = MedSegDiffNCA().seed(given, t, None)
    assert cells.shape == (2, 64, n, n)
    assert torch.equal(cells[:, 1:5], given)
    assert not cells[:, 0].any()
    assert not cells[:, 5:62].any()
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    torch.testing.assert_close(cells[:, 62], ((i + j) / (2 * (n - 1))).expand(2, n, n))
    assert torch.equal(cells[:, 63], t.view(2, 1, 1).expand(2, n, n))
    free = MedSegDiffNCA(position=False).seed(given, t, None)
    assert not free[:, 5:63].any()
    assert torch.equal(free[:, 63], cells[:, 63])


def test_channels_at_the_start_of_the_fine_level():
    """Specs 1.5: the whole coarse state enlarged, but image, x_t, position and time written anew."""
    given, coarse, t = torch.randn(1, 4, 8, 8), torch.randn(1, 64, 2, 2), torch.tensor([0.5])
    cells, fresh = MedSegDiffNCA().seed(given, t, coarse), MedSegDiffNCA().seed(given, t, None)
    wide = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(cells[:, 0], wide[:, 0])
    assert torch.equal(cells[:, 5:62], wide[:, 5:62])
    for part in (slice(1, 5), slice(62, 64)):
        assert torch.equal(cells[:, part], fresh[:, part])


@pytest.mark.parametrize("scale", [1000.0, 1.0])
def test_time_reaches_the_cells_divided_by_its_scale(scale):
    seen = []
    network = MedSegDiffNCA(channels=16, hidden=12, levels=1, time_scale=scale)
    network.levels[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(torch.zeros(2, 1, 4, 4), torch.tensor([0, 700]), {"image": torch.zeros(2, 3, 4, 4)})
    assert seen[0][:, -1, 0, 0].tolist() == pytest.approx([0, 700 / scale])


@pytest.mark.parametrize(("downsample", "std"), [("bilinear", 0.5), ("area", 0.25)])
def test_fact_a7_white_noise_at_the_coarse_level(downsample, std):
    small = MedSegDiffNCA(downsample=downsample).reduced(torch.randn(1, 1, 512, 512), 1)
    assert small.shape == (1, 1, 128, 128)
    assert float(small.std()) == pytest.approx(std, rel=0.03)


def test_fact_a6_what_the_coarse_level_does_not_see():
    image = torch.rand(1, 1, 64, 64)
    local = torch.arange(64) % 4
    central = ((local == 1) | (local == 2)).float()
    hidden = torch.rand(1, 1, 64, 64) * (1 - central[:, None] * central)
    assert torch.equal(MedSegDiffNCA().reduced(image + hidden, 1), MedSegDiffNCA().reduced(image, 1))
    assert not torch.equal(MedSegDiffNCA(downsample="area").reduced(image + hidden, 1), MedSegDiffNCA().reduced(image, 1))


@pytest.mark.parametrize(("at", "first", "last"), [(129, 78, 181), (128, 118, 138)])
def test_fact_a6_reach_of_two_levels(at, first, last):
    """Ten and ten updates of 256 x 256 cells, double precision, all cells acting by half."""
    network = MedSegDiffNCA(channels=10, hidden=16, norm="none", cbam=False, position=False, dropout=0.0, firing=Expected()).eval().double()
    for level in network.levels:
        torch.nn.init.normal_(level.act.weight, std=1.0)  # or the effect fades below the last digit on its way
    for p in network.parameters():
        p.requires_grad_(False)
    image, x, t = torch.rand(1, 3, 256, 256).double(), torch.randn(1, 1, 256, 256).double(), torch.tensor([500])
    other = image.clone()
    other[..., at, at] += 1
    rows = (network(x, t, {"image": image}).value != network(x, t, {"image": other}).value)[0, 0].any(1).nonzero()
    assert (int(rows.min()), int(rows.max())) == (first, last)


def test_fact_a8_nothing_is_pinned():
    network, image = alive(MedSegDiffNCA(channels=16, hidden=12)).eval(), torch.rand(1, 3, 16, 16)
    rgb = network(torch.randn(1, 1, 16, 16), torch.tensor([500]), {"image": image}).aux["rgb"]
    assert all(not torch.allclose(rgb[:, i], image[:, i]) for i in range(3))


def test_expected_firing_is_deterministic():
    network = alive(MedSegDiffNCA(channels=16, hidden=12, firing=Expected())).eval()
    x, t, cond = torch.randn(2, 1, 12, 12), torch.tensor([1, 2]), {"image": torch.rand(2, 3, 12, 12)}
    with torch.no_grad():
        assert torch.equal(network(x, t, cond).value, network(x, t, cond).value)


@pytest.mark.parametrize(
    ("options", "image", "x", "words"),
    [
        ({}, (1, 1, 8, 8), (1, 1, 8, 8), "image_channels"),
        ({}, (1, 3, 8, 8, 8), (1, 1, 8, 8, 8), "2D"),
        ({}, (1, 3, 8, 8), (1, 2, 8, 8), "mask_channels"),
        (
            {},
            (1, 3, 4, 8),
            (1, 1, 4, 8),
            "4 x 8 shrink to 1 x 2 cells at the coarsest of 2 levels, .*neighbours; take fewer --method.network.levels",
        ),
        ({"levels": 4, "scale": [2, 3, 2]}, (1, 3, 12, 24), (1, 1, 12, 24), "12 x 24 shrink to 1 x 2 cells at the coarsest of 4 levels"),
        ({"levels": 1}, (1, 3, 1, 8), (1, 1, 1, 8), "neighbours"),
    ],
)
def test_what_does_not_fit_is_refused(options, image, x, words):
    network = MedSegDiffNCA(channels=16, hidden=12, **options)
    with pytest.raises(InputError, match=words):
        network(torch.zeros(x), torch.zeros(1).long(), {"image": torch.zeros(image)})


def test_too_few_channels_are_refused():
    with pytest.raises(InputError, match="at least 7"):
        MedSegDiffNCA(channels=6)


@pytest.mark.parametrize("name", ["channels", "hidden", "updates", "levels", "scale"])
@pytest.mark.parametrize("value", [0, -1])
def test_options_below_one_are_named(name, value):
    with pytest.raises(InputError, match=f"^--method.network.{name} {value}: must be at least 1$"):
        MedSegDiffNCA(**{name: value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"updates": [10]}, "updates .*1 numbers for 2 levels; give one number, or one for each"),
        ({"channels": [16, 16, 16]}, "channels .*3 numbers for 2 levels"),
        ({"hidden": [8, 8], "levels": 3}, "hidden .*2 numbers for 3 levels"),
        ({"kernel": [3]}, "kernel .*1 numbers for 2 levels"),
        ({"scale": [2, 2]}, "scale .*2 numbers for 1 steps between levels"),
        ({"channels": [16, 6]}, "^6 channels a cell .*at least 7"),
        ({"updates": [3, 0]}, "updates 0: must be at least 1"),
        ({"kernel": 4}, "kernel 4: .*odd"),
        ({"patch": 1}, "patch 1: .*at least 2"),
        ({"patch": [8, 8, 8]}, "patch .*3 numbers for 2 axes"),
        ({"deep": True, "levels": 1}, "deep true: one level has no coarser ones"),
    ],
)
def test_levels_that_cannot_be_built_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        MedSegDiffNCA(**{"channels": 16, "hidden": 12} | options)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_time_is_not_divided_by_nothing(scale):
    with pytest.raises(InputError, match=f"^--method.network.time_scale {scale}: .*1000 is usual"):
        MedSegDiffNCA(time_scale=scale)


def test_arithmetic_reaches_every_level():
    for arithmetic in ("float32", "bfloat16"):
        network = MedSegDiffNCA(channels=16, hidden=12, arithmetic=arithmetic)
        assert [level.arithmetic for level in network.levels] == [getattr(torch, arithmetic)] * 2
    with pytest.raises(InputError, match=r"--method.network.arithmetic half: .*float32 or bfloat16"):
        MedSegDiffNCA(arithmetic="half")
