"""Windows: the facts are those of a sliding window over a volume, and MONAI's own is the oracle."""

import numpy as np
import pytest
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer
from torch import nn

from plain import Plain
from somite.contracts import NetworkContract, alive
from somite.diffusion.features import field
from somite.diffusion.guidance import Guided
from somite.diffusion.methods import Diffusion, FeedForward
from somite.diffusion.readout import Auxiliary
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import linear
from somite.errors import InputError
from somite.networks.baselines import DynUNet
from somite.networks.ensemdiff import EnsemDiff
from somite.networks.geca import GeCA
from somite.networks.medsegdiffnca import MedSegDiffNCA
from somite.networks.mirrored import Mirrored
from somite.networks.segdiff import SegDiff
from somite.predict.ensemble import sample
from somite.predict.tiling import Windows, places
from somite.rng import seeded
from somite.types import Network, Output


class TestWindows(NetworkContract):
    spaces = {2: [(32, 32), (13, 40)], 3: [(16, 16, 16), (9, 7, 20)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return Windows(DynUNet((4, 8, 12), deep_heads=1, dims=dims), [16] * dims)


class TestWindowsThatDraw(NetworkContract):
    """Cells that fire at random: each window has a stream of its own, begun by its row's."""

    spaces = {2: [(16, 16), (9, 20)]}  # noqa: RUF012

    def make(self, dims):
        return Windows(MedSegDiffNCA(12, 8, updates=2, levels=1, cbam=False, dims=dims), [12] * dims, batch=3)


class Identity(Network):
    def forward(self, x, t, cond, state=None):
        return Output(cond["image"])


class Seen(Network):
    """Keeps what it is given, window by window; x is the noise."""

    def __init__(self):
        super().__init__()
        self.given, self.made = [], 0

    def whole(self, cond):
        self.made += 1
        assert not torch.is_grad_enabled()
        return {**cond, "noise": field((1, *cond["image"].shape[2:]), 3, 10).expand_as(cond["image"])}

    def forward(self, x, t, cond, state=None):
        self.given.append((x.clone(), t.clone(), cond))
        return Output(x)


def given(*space, b=2):
    return torch.randn(b, 1, *space), torch.zeros(b).long(), {"image": torch.randn(b, 1, *space)}


def grid(*space):
    """(1, d, *s): the index of each voxel."""
    return torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in space], indexing="ij"))[None]


def answer(network, *asked):
    return network(*asked[:2], network.encode(asked[2]))


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("space", [(33, 20, 17), (16, 16, 16), (5, 7, 20), (1, 9, 3)], ids=str)
@torch.no_grad()
def test_fact_17_and_18_an_identity_gives_the_volume_back(space, overlap, blend):
    """Every voxel is covered, also of a volume that is smaller than the patch."""
    x, t, cond = given(*space)
    cond["image"].uniform_()
    out = answer(Windows(Identity(), (16, 16, 8), 3, overlap, blend).eval(), x, t, cond).value
    assert out.shape == cond["image"].shape
    assert (out - cond["image"]).abs().max() < (1e-6 if overlap <= 0.5 else 3e-6)  # of up to 64 windows a voxel


@pytest.mark.parametrize(("overlap", "count"), [(0.0, 63), (0.25, 96), (0.5, 240), (0.75, 1056)])
def test_fact_19_windows_of_a_scan(overlap, count):
    assert len(places((350, 280, 200), (128, 128, 32), overlap)) == count


@pytest.mark.parametrize("overlap", [0, 0.1, 0.25, 0.5, 0.9])
def test_windows_lie_where_monai_has_them(overlap):
    random = np.random.default_rng(0)
    for _ in range(12):
        patch = random.integers(1, 20, 3)
        space = patch + random.integers(0, 20, 3)
        steps = [max(1, int(side * (1 - overlap))) for side in patch]
        assert places(space.tolist(), patch.tolist(), overlap) == dense_patch_slices(space, patch, steps)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize("space", [(40, 29), (20, 18, 14)], ids=str)
@torch.no_grad()
def test_windows_are_blended_as_monai_blends_them(space, overlap, blend):
    patch = (16, 12, 8)[: len(space)]
    network = Plain(len(space)).eval()
    x, t, cond = given(*space)
    out = answer(Windows(network, patch, 3, overlap, blend).eval(), x, t, cond).value
    monai = SlidingWindowInferer(patch, 3, overlap=overlap, mode=blend, sigma_scale=0.125)
    assert torch.equal(out, monai(torch.cat([cond["image"] * 2, x], 1), network.layer))


@torch.no_grad()
def test_a_ramp_over_the_window_shows_the_weights_by_hand():
    class Ramp(Network):
        def forward(self, x, t, cond, state=None):
            return Output(torch.linspace(0, 1, x.shape[-1]).expand_as(x))

    out = answer(Windows(Ramp(), [16, 16]).eval(), *given(16, 32, b=1)).value
    at = np.arange(16)
    weight = np.exp(-((at - 7.5) ** 2) / (2 * 2.0**2))  # column 12 is seen by the windows from 0 and from 8
    ramp, column = np.linspace(0, 1, 16), 12
    by_hand = (ramp[column] * weight[column] + ramp[column - 8] * weight[column - 8]) / (weight[column] + weight[column - 8])
    assert out[0, 0, 3, column].item() == pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize("space", [(40, 29), (20, 18, 14)], ids=str)
@torch.no_grad()
def test_windows_of_a_pointwise_network_change_nothing(space):
    network = Plain(len(space), size=1).eval()
    x, t, cond = given(*space)
    out = answer(Windows(network, [8] * len(space), batch=3).eval(), x, t, cond).value
    assert {asked[1:] for asked in network.asked} == {(8,) * len(space)}
    assert max(asked[0] for asked in network.asked) == 3
    assert torch.allclose(out, network.layer(torch.cat([cond["image"] * 2, x], 1)), atol=1e-5)


@torch.no_grad()
def test_images_smaller_than_the_window_are_mirrored_at_their_far_edge():
    network = Plain(2).eval()
    x, t, cond = given(5, 12)
    out = answer(Windows(network, [8, 8]).eval(), x, t, cond).value
    assert out.shape == (2, 1, 5, 12)
    both = torch.cat([cond["image"] * 2, x], 1)
    wide = nn.functional.pad(both, (0, 0, 0, 3), mode="reflect")
    assert torch.allclose(out[..., 1:4, 1:4], network.layer(wide)[..., 1:4, 1:4], atol=1e-5)


@torch.no_grad()
def test_fact_16_for_a_linear_head_the_mean_of_logits_is_the_head_of_mean_features():
    """The features of a window depend on the window: its mean is taken off, as a norm would."""

    class Features(Network):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(1, 6, 3, padding=1)

        def forward(self, x, t, cond, state=None):
            maps = self.conv(cond["image"])
            return Output((maps - maps.mean((2, 3, 4), keepdim=True)).relu())

    class Headed(Network):
        def __init__(self, features, head):
            super().__init__()
            self.features, self.head = features, head

        def forward(self, x, t, cond, state=None):
            return Output(self.head(self.features(x, t, cond).value))

    features, head, asked = Features(), nn.Conv3d(6, 3, 1), given(20, 18, 14)
    logits, maps = (answer(Windows(network, (8, 8, 4)).eval(), *asked).value for network in (Headed(features, head), features))
    assert torch.allclose(logits, head(maps), atol=1e-4)
    assert not torch.allclose(maps, features(*asked).value, atol=1e-2)  # the windows matter


def test_fact_20_windows_see_the_same_x_t_where_they_overlap():
    """x, the condition's maps and what the network made of the whole case are cut at the same places; vectors follow their rows."""
    space, network = (12, 10, 9), Seen()
    method = Diffusion(Windows(network, (8, 8, 4), batch=5), linear(100), {}, Ancestral(steps=3), predicts="x0").eval()
    cond = {"image": torch.rand(2, 1, *space), "coordinates": grid(*space).expand(2, -1, -1, -1, -1), "labels": torch.eye(2)}
    of = [0, 0, 1]
    with seeded(0, ["a/0", "a/1", "b/0"]):
        steps = list(method.trajectory(cond, (3, 1, *space), of))
    assert network.made == 1
    volumes = {step.t: step.x for step in steps}
    asked = [(t, member, place) for t in (99, 66, 32) for member in range(3) for place in places(space, (8, 8, 4), 0.5)]
    windows = [(x[i], int(t[i]), {name: part[i] for name, part in c.items()}) for x, t, c in network.given for i in range(len(x))]
    assert len(windows) == len(asked) == 9 * 16
    noise = field((1, *space), 3, 10)[0]
    for (x, t, seen), (at, member, place) in zip(windows, asked, strict=True):
        assert t == at
        assert torch.equal(x, volumes[at][(member, slice(None), *place)])
        assert torch.equal(seen["noise"], noise[(slice(None), *place)])
        assert torch.equal(seen["image"], cond["image"][(of[member], slice(None), *place)])
        assert torch.equal(seen["coordinates"], cond["coordinates"][(0, slice(None), *place)])
        assert torch.equal(seen["labels"], cond["labels"][of[member]])


def test_what_is_made_of_a_whole_case_reaches_the_network_through_others():
    for wrap in (Mirrored, lambda network: Guided(network, guidance=2.0)):
        inner = Seen()
        windows = Windows(wrap(inner), (8, 8, 4)).eval()
        known = windows.encode({"image": torch.rand(1, 1, 12, 10, 9), "labels": torch.ones(1, 2)})
        assert known["noise"].shape == (1, 1, 12, 10, 9)
        windows(torch.zeros(1, 1, 12, 10, 9), torch.zeros(1).long(), known)
        assert all(c["noise"].shape[2:] == (8, 8, 4) for _, _, c in inner.given)


def test_in_training_it_is_the_network_alone():
    network = Seen()
    asked = torch.zeros(2, 1, 6, 5), torch.zeros(2).long(), {"image": torch.rand(2, 1, 6, 5)}
    out = answer(Windows(network, [3, 3]).train(), *asked)
    assert network.made == 0
    assert [x.shape for x, _, _ in network.given] == [(2, 1, 6, 5)]
    assert torch.equal(out.value, asked[0])


@torch.no_grad()
def test_variance_and_maps_are_blended_like_the_value():
    class More(Network):
        def __init__(self):
            super().__init__()
            self.somewhere = nn.Parameter(torch.zeros(1))  # a method asks its parameters for the device

        def forward(self, x, t, cond, state=None):
            image = cond["image"]
            deep = torch.stack([image, 3 * image], 1)
            aux = {"cal": image.sigmoid(), "deep": deep, "half": image[..., ::2, ::2], "score": image.flatten(1).mean(1)}
            return Output(image, var=2 * image, aux=aux)

    asked = given(11, 14)
    out = answer(Windows(More(), [8, 8]).eval(), *asked)
    image = asked[2]["image"]
    assert set(out.aux) == {"cal", "deep"}  # the others have no place in the whole
    for part, want in ((out.var, 2 * image), (out.aux["cal"], image.sigmoid()), (out.aux["deep"], torch.stack([image, 3 * image], 1))):
        assert torch.allclose(part, want, atol=1e-5)
    method = FeedForward(Windows(More(), [8, 8]), {}, readout=Auxiliary("cal")).eval()
    assert torch.allclose(method.sample({"image": image}, (2, 1, 11, 14)), image.sigmoid(), atol=1e-5)


NETWORKS = {
    "dynunet": lambda: DynUNet((4, 8, 12), image_channels=1, deep_heads=1, dims=3),
    "ensemdiff": lambda: EnsemDiff(32, (1, 2), 1, attention=(2,), heads=2, image_channels=1, learn_variance=True, dims=3),
    "segdiff": lambda: SegDiff(32, (1, 2), 1, attention=(2,), image_channels=1, rrdb_blocks=1, dims=3),
    "nca": lambda: MedSegDiffNCA(12, 8, updates=2, levels=2, cbam=True, image_channels=1, scale=2, dims=3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_diffusion_of_any_3d_network_answers_whole_volumes(name):
    """A member is the same in any batch, of members or of windows."""
    network, space = alive(NETWORKS[name]()), (13, 8, 10)
    made = []
    for batch, members in ((1, 1), (4, 2)):
        method = Diffusion(Windows(network, (8, 8, 8), batch), linear(100), {}, DDIM(steps=2), predicts="logits").eval()
        image = torch.linspace(0, 1, 13 * 80).reshape(1, 1, *space)
        made.append(sample(method, {"image": image}, (1, 1, *space), "case", 2, 0, members))
    assert made[0].shape == (2, 1, 1, *space)
    assert torch.allclose(*made, atol=1e-4)
    assert made[0].std() > 1e-3


def test_feed_forward_takes_it_like_any_network():
    method = FeedForward(Windows(Mirrored(DynUNet((4, 8, 12), deep_heads=1)), [16, 16]), {}).eval()
    p = method.sample({"image": torch.randn(2, 3, 40, 20)}, (2, 1, 40, 20))
    assert p.shape == (2, 1, 40, 20)
    assert 0 <= p.min() <= p.max() <= 1


@pytest.mark.parametrize("training", [False, True])
def test_cells_that_inherit_are_refused(training):
    network = Windows(GeCA(1, 4, 8, 2, 8, updates=2, image_channels=1), [8, 8]).train(training)
    with pytest.raises(InputError, match=r"hands on a state .* leave somite.predict.tiling.Windows out"):
        answer(network, *given(12, 12))


class Coarse(Network):
    def forward(self, x, t, cond, state=None):
        return Output(x[..., ::2])


@pytest.mark.parametrize(
    ("make", "cond", "words"),
    [
        (lambda: Windows(Identity(), [8, 8, 8]), {}, r"patch \[8, 8, 8\] has 3 axes for targets of 2"),
        (lambda: Windows(Identity(), [8, 8], overlap=1.0), {}, r"overlap 1: .* 0.5 is usual"),
        (lambda: Windows(Identity(), [8, 8], overlap=-0.1), {}, r"overlap -0.1"),
        (lambda: Windows(Identity(), [8, 0]), {}, r"patch \[8, 0\], batch 4"),
        (lambda: Windows(Identity(), [8, 8], batch=0), {}, r"batch 0"),
        (lambda: Windows(Coarse(), [8, 8]), {}, r"the network's value is \(4, 1, 8, 4\) for windows of \(4, 1, 8, 8\)"),
        (lambda: Windows(Identity(), [8, 8]), {"body": torch.ones(2, 1, 6, 6)}, r"condition's body is \(2, 1, 6, 6\)"),
    ],
)
def test_what_cannot_be_cut_is_refused(make, cond, words):
    x, t, image = given(12, 12)
    with pytest.raises(InputError, match=words):
        answer(make().eval(), x, t, {**image, **cond})
