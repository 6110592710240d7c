"""Two views of a scan: both show the same voxels where they say so, read off volumes whose brightness says where a voxel lies."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional as F

from scans import Own, located, write
from somite.data.augment import Augment
from somite.data.body import Body
from somite.data.coordinates import BodyBox
from somite.data.dataset import Data
from somite.data.normalise import Window as HU
from somite.data.phantoms import write_phantoms
from somite.data.preprocess import Preprocess
from somite.data.record import Record
from somite.data.views import Views, Window, blurred
from somite.diffusion.views import Contrast, Positions
from somite.errors import InputError
from somite.networks.vox2vec import Projector, Vox2Vec
from somite.nn.coordinates import Displacements, Distances
from somite.nn.pyramid import at_voxels
from somite.types import Network, Output

PLAIN = {"blur_rate": 0.0, "noise_rate": 0.0, "window_rate": 0.0, "values": None}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Volumes whose three channels are where their voxels lie, in dm, in two orders of axes."""
    root = tmp_path_factory.mktemp("places")
    for name, codes in (("a", "LPS"), ("b", "PIR")):
        located(root / "images" / f"{name}.nii.gz", codes, (40, 36, 24))
    return root


def data_of(root, views, channels=3, body=None, spacing_mm=None, **options):
    preprocess = Preprocess(channels, normalise=Own(), dims=3, orientation="RAS", spacing_mm=spacing_mm)
    data = Data(str(root), preprocess, views=views, body=body, **options).needing({"image"})
    data._cases = {"train": data.source.all}
    return data


class Brightness(Network):
    """Says of each voxel what is there."""

    def forward(self, x, t, cond, state=None):
        return Output(cond["image"])


@pytest.mark.parametrize("size", [16, [20, 12, 16], 48], ids=["cubes", "boxes", "larger than the volume"])
@pytest.mark.parametrize("spacing_mm", [None, [1.5, 1.5, 2.0]])
def test_both_views_show_the_voxels_where_they_lie(places, size, spacing_mm):
    """The network that is right everywhere has no loss at all, so voxels, views and millimetres agree."""
    data = data_of(places, Views(size, voxels=64, **PLAIN), spacing_mm=spacing_mm)
    (batch,) = data.stream(batch=4, total=1, seed=3)
    assert batch["image"].shape == batch["other"].shape == (4, 3, *(np.array([1, 1, 1]) * size))
    assert batch["voxels"].shape == batch["other_voxels"].shape == (4, 64, 3) and batch["voxels"].dtype == torch.int64
    assert batch["mm"].shape == (4, 3, 64) and batch["mm"].dtype == torch.float32
    assert not torch.equal(batch["voxels"], batch["other_voxels"]) or size == 48
    cond = {name: batch[name] for name in ("image", "other", "voxels", "other_voxels")}
    losses = Positions(Brightness(), Displacements(unit=100)).loss(batch["mm"], cond)
    interior = 5e-6 if spacing_mm is None else 0.02  # resampled, the outermost voxels are not where they say
    assert all(value < interior for value in losses.values())
    assert Positions(Brightness(), Displacements(unit=50)).loss(batch["mm"], cond)["displacement"] > 0.05


@pytest.mark.parametrize("shape", [(40, 36, 24), (80, 70, 40)], ids=["windows beyond the volume", "within"])
def test_spacings_of_their_own_put_voxels_within_half_a_voxel(tmp_path, shape):
    """Against the affine: where a view's voxel says that it lies, and where the voxel of the volume does that it stands for."""
    spread = [[1.0, 3.0], [1.0, 3.0], [2.0, 5.0]]
    located(tmp_path / "images" / "a.nii.gz", "PIR", shape)
    data = data_of(tmp_path, Views(16, voxels=200, spacing_mm=spread, **PLAIN))
    origin = torch.tensor([-30.0, 12.0, 700.0]) - torch.tensor([1.1, 0.9, 2.5]) / 2  # mm count from the first voxel's face
    steps = []
    for seed in range(20):
        drawn = data.draw(0, seed)
        for image, voxels in (("image", "voxels"), ("other", "other_voxels")):
            said = 100 * at_voxels([drawn[image][None]], drawn[voxels][None])[0]
            apart = (said - drawn["mm"].T - origin).abs()
            assert bool((apart <= torch.tensor([1.5, 1.5, 2.5]) + 1e-3).all())
            steps.append([float(drawn[image][k].diff(dim=k).median()) * 100 for k in range(3)])
    if shape == (80, 70, 40):
        low, high = np.array(spread).T
        assert np.all(np.array(steps) >= low - 1e-3) and np.all(np.array(steps) <= high + 1e-3)
        assert np.all(np.ptp(steps, 0) > 0.7 * (high - low))  # every view has its own
    assert np.mean([a != b for a, b in zip(steps[::2], steps[1::2], strict=True)]) == 1


def test_resampled_views_are_grid_samples():
    """torch's grid_sample is the judge, in the volume's interior and at its border, where it repeats the last voxel."""
    image = torch.randn(2, 11, 9, 8)
    window = Window((1.3, -0.4, 0.9), (0.7, 1.15, 1.5), (9, 8, 4), (11, 9, 8))
    lines = [
        2 * (s + d * (torch.arange(n) + 0.5)) / have - 1
        for s, d, n, have in zip(window.start, window.step, window.size, window.space, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], -1)
    wanted = F.grid_sample(image[None], grid[None].float(), padding_mode="border", align_corners=False)[0]
    torch.testing.assert_close(window.view(image), wanted, atol=1e-4, rtol=1e-4)


def test_whole_windows_are_the_volume_itself():
    image = torch.randn(1, 11, 9, 8)
    assert torch.equal(Window((2.0, 0.0, 3.0), (1.0,) * 3, (5, 9, 5), (11, 9, 8)).view(image), image[:, 2:7, :, 3:])
    beyond = Window((-2.0, 0.0, 0.0), (1.0,) * 3, (15, 9, 8), (11, 9, 8)).view(image)
    assert torch.equal(beyond[:, 2:13], image) and torch.all(beyond[:, :2] == image.min()) and torch.all(beyond[:, 13:] == image.min())


def test_voxels_are_the_bodys_and_all_of_the_overlap_are_met(tmp_path):
    write(tmp_path, "LPS", padding=-3024)
    data = data_of(tmp_path, Views(24, voxels=50, **PLAIN), channels=1, body=Body())
    body = data.sample(data.read(data.source.all[0]), {"image"})["body"][0, 0]
    met = set()
    for seed in range(40):
        drawn = data.draw(0, seed)
        i, j, k = drawn["voxels"].T
        assert torch.all(drawn["image"][0, i, j, k] > 0)  # tissue, not air
        assert torch.equal(drawn["image"][0, i, j, k], drawn["other"][0, *drawn["other_voxels"].T])
        assert len({tuple(row) for row in drawn["voxels"].tolist()}) == 50
        met |= {tuple(row) for row in (drawn["mm"].T / torch.tensor([1.1, 0.9, 2.5])).floor().long().tolist()}
    assert all(bool(body[voxel]) for voxel in met) and len(met) > 1000


def test_voxels_are_drawn_again_where_the_overlap_has_fewer(tmp_path):
    write(tmp_path, "LPS")
    drawn = data_of(tmp_path, Views([6, 6, 6], voxels=500, **PLAIN), channels=1, body=Body()).draw(0, 0)
    assert drawn["voxels"].shape == (500, 3) and len(drawn["voxels"].unique(dim=0)) <= 216


def test_without_a_body_everything_counts():
    """An image that is everywhere, as in MR; and a body of nothing, where a threshold is wrong."""
    for body in (None, torch.zeros(1, 12, 12, 12, dtype=torch.uint8)):
        drawn = Views(8, voxels=20)(torch.rand(1, 12, 12, 12), body, (1.0, 1.0, 1.0), np.random.default_rng(0))
        assert len(drawn["voxels"].unique(dim=0)) == 20


def test_windows_reach_every_place_and_hold_the_anchor():
    views = Views(4)
    starts = set()
    for seed in range(400):
        window = views.window([5, 0, 9], (10, 10, 10), (1, 1, 1), np.random.default_rng(seed))
        starts.add(window.start)
        for at, start in zip([5, 0, 9], window.start, strict=True):
            assert start <= at < start + 4 and 0 <= start <= 6
    assert {x for x, _, _ in starts} == {2, 3, 4, 5} and {y for _, y, _ in starts} == {0} and {z for _, _, z in starts} == {6}


def test_a_draw_is_a_function_of_the_seed(places):
    views = Views(16, voxels=32, spacing_mm=[[1, 4], [1, 4], [2, 6]], hide_rate=0.5, hide_block=[8, 8, 4])
    first, again = (data_of(places, views).draw(0, 5) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(data_of(places, views).draw(0, 6)["image"], first["image"])


@pytest.mark.parametrize(("axis", "scipys"), [(2, 1), (3, 2)])
def test_blurring_is_scipys_in_the_plane(axis, scipys):
    x = np.random.default_rng(0).random((1, 24, 20, 5), np.float32)
    wanted = gaussian_filter1d(gaussian_filter1d(x, 1.2, 1, mode="nearest", radius=4), 1.2, 2, mode="nearest", radius=4)
    assert np.abs(blurred(torch.from_numpy(x), 1.2).numpy() - wanted).max() < 1e-5
    assert np.allclose(blurred(torch.from_numpy(x), 0.0).numpy(), x)


def looks(image, **options):
    views = Views(16, **{"blur_rate": 0, "noise_rate": 0, "window_rate": 0, **options})
    return [views.looked(image, np.random.default_rng(seed)) for seed in range(60)]


def test_each_look_is_what_it_says():
    image = (0.5 + 0.1 * torch.randn(1, 16, 16, 16)).clamp(0, 1)
    assert all(torch.equal(one, image) for one in looks(image))
    rough = [float((one[:, 1:] - one[:, :-1]).std() / (image[:, 1:] - image[:, :-1]).std()) for one in looks(image, blur_rate=1.0)]
    assert 15 < sum(one < 1 for one in rough) < 45 and max(rough) > 1.2 > 0.6 > min(rough)  # sharpened or blurred, by about a coin
    noise = [float((one - image).std()) for one in looks(image, noise_rate=1.0, noise=0.05)]
    assert max(noise) < 0.052 and np.mean(noise) == pytest.approx(0.025, rel=0.25)
    ramp = torch.linspace(0, 1, 4096).reshape(1, 16, 16, 16)
    for one in looks(ramp, window_rate=1.0):
        assert one.min() == 0 and one.max() == 1 and (one == 0).float().mean() < 0.16 and (one == 1).float().mean() < 0.31
        middle = one[(one > 0) & (one < 1)]
        assert 1 <= float((middle[1:] - middle[:-1]).median()) * 4095 <= 1 / 0.55 + 1e-3
    assert 20 < sum(not torch.equal(one, ramp) for one in looks(ramp, window_rate=0.5)) < 40
    scaled = [2 * one - 1 for one in looks(ramp, window_rate=1.0)]  # in [-1, 1] the same window
    for one, wanted in zip(looks(2 * ramp - 1, window_rate=1.0, values=[-1.0, 1.0]), scaled, strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-5, rtol=0)


def test_views_look_different_from_each_other():
    image = torch.rand(1, 16, 16, 16)
    drawn = Views(16, voxels=8, blur_rate=1.0, noise_rate=1.0)(image, None, (1, 1, 1), np.random.default_rng(0))
    assert not torch.equal(drawn["image"], drawn["other"]) and torch.equal(drawn["voxels"], drawn["other_voxels"])


def test_blocks_are_hidden():
    views = Views([96, 96, 64], hide_rate=0.5)
    found = [views.seen(np.random.default_rng(seed)) for seed in range(60)]
    assert all(one.shape == (1, 24, 24, 16) and set(one.unique().tolist()) <= {0.0, 1.0} for one in found)
    hidden = [one for one in found if not one.all()]
    assert 18 < len(hidden) < 42
    for one in hidden:
        assert float(one.mean()) == pytest.approx(0.4, abs=0.01)  # 38 of 64 blocks
        blocks = F.avg_pool3d(one[None], (6, 6, 4))
        assert set(blocks.unique().tolist()) == {0.0, 1.0}
    drawn = views(torch.rand(1, 96, 96, 64), None, (1, 1, 1), np.random.default_rng(1))
    assert {"seen", "other_seen"} <= set(drawn)
    assert Views([10, 4, 7], hide_rate=1.0).seen(np.random.default_rng(0)).shape == (1, 2, 1, 1)


@pytest.mark.parametrize("by", [Displacements(), Distances()], ids=lambda by: type(by).__name__)
def test_positions_are_learned_end_to_end(places, by):
    """A network that sees no further than a voxel finds the scale between what it sees and where that is."""

    class Pointwise(Brightness):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(3, 3, 1)

        def forward(self, x, t, cond, state=None):
            return Output(self.conv(cond["image"]))

    torch.manual_seed(0)
    method = Positions(Pointwise(), by)
    optimizer = torch.optim.Adam(method.parameters(), 0.1)
    found = []
    for batch in data_of(places, Views(16, voxels=40, **PLAIN)).stream(batch=2, total=60, seed=0):
        loss = method.loss(batch["mm"], {name: batch[name] for name in ("image", "other", "voxels", "other_voxels")})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert np.mean(found[-10:]) < 0.3 * np.mean(found[:5])


def test_contrast_is_learned_end_to_end_on_phantoms(tmp_path):
    """Vectors of voxels of phantoms become each other's nearest, from the bare images that a recipe would read."""
    root = write_phantoms(tmp_path, 4, (24, 24, 16), channels=1)
    data = Data(str(root), Preprocess(1, normalise=HU(0, 1), dims=3, orientation="RAS"), views=Views(16, voxels=32)).needing({"image"})
    torch.manual_seed(0)
    network = Vox2Vec(base=4, levels=3)
    method = Contrast(network, Projector(sum(network.channels("decoder")), 16))
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    found = []
    for batch in data.stream(batch=2, total=40, seed=0):
        loss = method.loss(batch["mm"], {name: batch[name] for name in ("image", "other", "voxels", "other_voxels")})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:3])
    validation = data.loaded(data.cases("val")[0])
    assert validation["image"].shape == (1, 1, 24, 24, 16) and validation["spacing"].tolist() == [[1.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": [8, 8]}, "three sizes"),
        ({"size": 8, "voxels": 0}, "number of voxels"),
        ({"size": 8, "spacing_mm": [[1, 2], [1, 2]]}, r"spacing_mm .*\[low, high\] above 0"),
        ({"size": 8, "spacing_mm": [[0, 2]] * 3}, r"spacing_mm .*above 0"),
        ({"size": 8, "values": [1.0, 0.0]}, "views.values"),
        ({"size": 8, "darkest": 0.6, "brightest": 0.5}, "together below 1"),
        ({"size": 8, "hide_block": [2, 8, 8]}, "hide_block"),
    ],
)
def test_what_makes_no_view_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        Views(**options)


@pytest.mark.parametrize(
    "options", [{"crop": 8}, {"augment": Augment()}, {"foreground_rate": 0.5}, {"raters": True}], ids=lambda options: next(iter(options))
)
def test_views_are_cut_and_changed_in_their_own_way(options):
    with pytest.raises(InputError, match=f"--data.{next(iter(options))} is not for --data.views"):
        Data(preprocess=Preprocess(dims=3, orientation="RAS"), views=Views(8), **options)


def test_views_need_volumes_in_order(places):
    with pytest.raises(InputError, match=r"--data.views.*orientation RAS"):
        Data(preprocess=Preprocess(dims=3), views=Views(8))
    data = data_of(places, Views(16, **PLAIN), coordinates=BodyBox())
    assert set(data.draw(0, 0)) == {"image", "other", "voxels", "other_voxels", "mm"}


def test_views_need_a_spacing_and_answers_do_not(places):
    data = data_of(places, Views(16))
    case, array = data.cases("train")[0], np.zeros((3, 8, 8, 8), np.float32)
    record = Record(case, "a", array, None, None, None, None)
    assert set(data.sample(record, {"image"})) == {"image"}
    data._cache[case] = data.sample(record, {"image"})
    with pytest.raises(InputError, match="a does not say how far apart its voxels are"):
        data.draw(0, 0)
