"""EnsemDiff, SegDiff and MedSegDiff give what the official code gave, from the same weights and noise."""

import gzip
from copy import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from published import data, filled
from somite import rng
from somite.contracts import NetworkContract
from somite.diffusion.codec import Signed, Unit
from somite.diffusion.methods import Diffusion
from somite.diffusion.readout import Auxiliary, fused
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Aux, Noise, Variational
from somite.networks.ensemdiff import EnsemDiff
from somite.networks.medsegdiff import FFParser, MedSegDiff, MedSegDiffV1
from somite.networks.segdiff import SegDiff
from somite.predict.ensemble import sample

REFERENCE = Path(__file__).parents[1] / "reference" / "unet"
CITY = {"rrdb_blocks": 15, "mults": (1, 1, 2, 2, 4, 4), "attention": (8, 16)}
PUBLISHED = {
    "ensemdiff_full": (EnsemDiff, {}, 113_674_370),
    "segdiff_monuseg_full": (SegDiff, {}, 164_154_753),
    "segdiff_vaih_full": (SegDiff, {"rrdb_blocks": 6}, 159_838_209),
    "segdiff_city128_full": (SegDiff, CITY, 162_766_017),
    "medsegdiff_new_full": (MedSegDiff, {}, 129_400_450),
    "medsegdiff_v1_full": (MedSegDiffV1, {"random_projection": True}, 130_527_814),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_and_names(name):
    kind, options, count = PUBLISHED[name]
    with torch.device("meta"):
        network = kind(**options)
    assert sum(p.numel() for p in network.parameters()) == count
    ours = {key.removeprefix("unet."): str(tuple(value.shape)) for key, value in network.state_dict().items()}
    lines = gzip.decompress((REFERENCE / f"{name}_keys.txt.gz").read_bytes()).decode().splitlines()
    assert ours == dict(line.split("\t") for line in lines)


def close(ours, theirs, rtol=1e-4):
    """Within rtol of the largest value: single elements near zero carry no relative meaning."""
    assert (ours - theirs).abs().max() <= rtol * theirs.abs().max()


@pytest.fixture(scope="module")
def ensemdiff():
    network = filled(EnsemDiff(32, (1, 2, 2), 1, (2,), 2))
    method = Diffusion(
        network,
        linear(1000),
        {"noise": Noise(), "variance": Variational(tanh_cdf=True)},
        Ancestral(10, "learned", spacing="linspace"),
        Unit(),
    )
    return method, load_file(REFERENCE / "ensemdiff_small_cases.safetensors")


@pytest.fixture(scope="module")
def segdiff():
    network = filled(SegDiff(32, (1, 2, 2, 2), 1, (2, 4), 4, 1))
    method = Diffusion(network, linear(100), {"noise": Noise()}, Ancestral(10, "large", clip=None, spacing="linspace"), Signed())
    return method, load_file(REFERENCE / "segdiff_small_cases.safetensors")


@pytest.fixture(scope="module")
def medsegdiff():
    network = filled(MedSegDiff((1, 2), 1, (2,), 2))
    terms = {"noise": Noise(), "variance": Variational(tanh_cdf=True), "cal": Aux("cal", weight=10)}
    method = Diffusion(network, linear(1000), terms, Ancestral(5, "learned", spacing="linspace"), Unit())
    return method, load_file(REFERENCE / "medsegdiff_new_small_cases.safetensors")


@torch.no_grad()
def test_ensemdiff_forward_and_losses(ensemdiff):
    method, case = ensemdiff
    image, x = case["fwd.x"][:, :4], case["fwd.x"][:, 4:]
    out = method.network(x, case["fwd.t"], {"image": image})
    close(torch.cat([out.value, out.var], 1), case["fwd.out"])
    for part in ("loss_a", "loss_b"):
        ex = method.corrupt(case["loss.mask"], case[f"{part}.t"], case["loss.noise"])
        pred = method.denoise(ex.x_t, ex.t, {"image": case["loss.image"]})
        close(pred.eps, case[f"{part}.eps_pred"])
        noise, variance = (method.terms[name](pred, ex) for name in ("noise", "variance"))
        close(noise, case[f"{part}.mse"])
        close(variance, case[f"{part}.vb"])
        close(noise + variance, case[f"{part}.loss"])


@torch.no_grad()
def test_the_exact_distribution_function_differs_only_at_t_0(ensemdiff):
    method, case = ensemdiff
    ex = method.corrupt(case["loss.mask"], case["loss_a.t"], case["loss.noise"])
    pred = method.denoise(ex.x_t, ex.t, {"image": case["loss.image"]})
    exact, official = Variational()(pred, ex), case["loss_a.vb"]
    assert ex.t.tolist() == [0, 500]
    assert float(exact[0]) == pytest.approx(float(official[0]), rel=0.01)
    assert abs(exact[0] - official[0]) > 1e-3 * official[0]
    assert float(exact[1]) == pytest.approx(float(official[1]), rel=1e-4)


def stepping(method, steps, readout=None):
    """The same network, sampled in so many steps."""
    sampler = copy(method.sampler)
    sampler.steps = steps
    return Diffusion(method.network, method.schedule, method.terms, sampler, method.codec, method.predicts, None, readout)


def trajectory(method, sampler, start, noises, image, monkeypatch):
    """Every x, the recorded noise replayed."""
    queue = iter(noises)
    monkeypatch.setattr(rng, "normal", lambda shape, device: next(queue))
    cond = method.network.encode({"image": image})
    return torch.stack(
        [
            step.x
            for step in sampler.trajectory(
                lambda x, t, state: method.denoise(x, t, cond, state), method.schedule, start, method.codec.bound
            )
        ]
    )


@torch.no_grad()
def test_ensemdiff_trajectories(ensemdiff, monkeypatch):
    method, case = ensemdiff
    assert method.sampler.timesteps(1000)[::-1] == case["traj.timestep_map"].tolist()
    image = case["loss.image"]
    close(trajectory(method, method.sampler, case["ddpm.x"][0], case["ddpm.noise"], image, monkeypatch), case["ddpm.x"])
    close(trajectory(method, DDIM(10, spacing="linspace"), case["ddim.x"][0], (), image, monkeypatch), case["ddim.x"])


@torch.no_grad()
def test_segdiff_forward_and_loss(segdiff):
    method, case = segdiff
    cond = method.network.encode({"image": case["image"]})
    close(cond["features"], case["fwd.rrdb"])
    close(method.network(case["fwd.x"], case["fwd.t"], cond).value, case["fwd.out"])
    ex = method.corrupt((case["mask"] + 1) / 2, case["loss.t"], case["loss.noise"])
    loss = Noise()(method.denoise(ex.x_t, ex.t, cond), ex)
    close(loss, case["loss.mse"])
    close(loss * ex.x0[0].numel(), case["loss.sum"])


@torch.no_grad()
def test_segdiff_trajectories(segdiff, monkeypatch):
    method, case = segdiff
    noise = case["ddpm.noise"]
    for name, clip in (("ddpm", None), ("ddpm_clip", 1.0)):
        sampler = Ancestral(10, "large", clip=clip, spacing="linspace")
        close(trajectory(method, sampler, case[f"{name}.x"][0], noise, case["image"], monkeypatch), case[f"{name}.x"])
    for name, clip in (("ddim", None), ("ddim_clip", 1.0)):
        sampler = DDIM(10, clip=clip, spacing="linspace")
        close(trajectory(method, sampler, case[f"{name}.x"][0], (), case["image"], monkeypatch), case[f"{name}.x"])


@torch.no_grad()
def test_segdiff_encodes_the_image_once_a_sampling_and_to_the_same_result(segdiff):
    method, case = segdiff
    calls = []
    hook = method.network.rrdb.register_forward_hook(lambda *_: calls.append(1))
    results = []
    for cached in (True, False):
        method.network.cache_image = cached
        calls.clear()
        torch.manual_seed(1)
        results.append(method.sample({"image": case["image"]}, (2, 1, 32, 32)))
        assert len(calls) == (1 if cached else 10)
    method.network.cache_image = True
    hook.remove()
    assert torch.equal(*results)


def test_members_of_one_image_share_its_encoding(segdiff):
    method, case = segdiff
    method = stepping(method, 1)  # a walk of many steps with such weights would make more of the last digit
    seen = []
    hook = method.network.rrdb.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    images = case["image"][:1].repeat(2, 1, 1, 1) * torch.tensor([1.0, 0.5])[:, None, None, None]
    together = sample(method, {"image": images}, (2, 1, 32, 32), "x", members=3, seed=0, batch=6)
    assert seen == [2]
    apart = sample(method, {"image": images}, (2, 1, 32, 32), "x", members=3, seed=0, batch=1)
    hook.remove()
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-3)  # 1 / alpha at T-1 makes 150 of a last digit
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.1


def test_medsegdiffs_own_map_is_the_same_after_one_step_and_after_many(medsegdiff):
    method, _ = medsegdiff
    image, maps = torch.rand(1, 3, 32, 32), []
    for steps in (1, 3):
        with rng.seeded(0, ["x"]):
            maps.append(stepping(method, steps, Auxiliary()).sample({"image": image}, (1, 1, 32, 32)))
    assert torch.equal(*maps)
    assert maps[0].std() > 0


@torch.no_grad()
def test_medsegdiff_forward_losses_and_fusion(medsegdiff):
    method, case = medsegdiff
    image, x = case["fwd.x"][:, :3], case["fwd.x"][:, 3:]
    cond = method.network.encode({"image": image})
    out = method.network(x, case["fwd.t"], cond)
    close(torch.cat([out.value, out.var], 1), case["fwd.out"])
    close(out.aux["cal"], case["fwd.cal"])
    ex = method.corrupt(case["loss.mask"], case["loss.t"], data("medsegdiff:noise", (2, 1, 64, 64)))
    cond = method.network.encode({"image": data("medsegdiff:image", (2, 3, 64, 64))})
    pred = method.denoise(ex.x_t, ex.t, cond)
    for name, key in (("noise", "loss_diff"), ("variance", "vb"), ("cal", "loss_cal")):
        close(method.terms[name](pred, ex), case[f"loss.{key}"])
    close(method.total(pred, ex)["loss"], case["loss.total_trainer"][0])
    close(fused(case["ddpm.x"][-1], case["ddpm.cal"]), case["fuse.cal_out"])


@torch.no_grad()
def test_medsegdiff_trajectory(medsegdiff, monkeypatch):
    method, case = medsegdiff
    image = data("medsegdiff:image", (2, 3, 64, 64))
    close(trajectory(method, method.sampler, case["ddpm.x"][0], case["ddpm.noise"], image, monkeypatch), case["ddpm.x"])


def test_the_highway_learns_from_its_own_loss_alone():
    network = MedSegDiff((1, 2), 1, (2,), 2)
    for p in network.unet.out.parameters():
        torch.nn.init.normal_(p, std=0.1)
    cond = network.encode({"image": torch.randn(1, 3, 64, 64)})
    out = network(torch.randn(1, 1, 64, 64), torch.tensor([5]), cond)
    out.value.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in network.hwm.parameters())
    out.aux["cal"].sum().backward()
    assert all(p.grad is not None for p in network.hwm.parameters())


def small_v1(**options):
    network = MedSegDiffV1(32, (1, 1, 2, 2, 2), 1, (16,), 2, image_channels=3, size=64, **options).eval()
    torch.nn.init.normal_(network.unet.out[-1].weight, std=0.1)
    return network


@torch.no_grad()
def test_v1_is_deterministic_with_its_projection_registered_and_not_as_published():
    x, t, cond = torch.randn(1, 1, 64, 64), torch.tensor([5]), {"image": torch.randn(1, 3, 64, 64)}
    ours, official = small_v1(), small_v1(random_projection=True)
    assert torch.equal(ours(x, t, cond).value, ours(x, t, cond).value)
    assert not torch.equal(official(x, t, cond).value, official(x, t, cond).value)
    assert ours(torch.randn(2, 1, 96, 64), torch.tensor([5, 6]), {"image": torch.randn(2, 3, 96, 64)}).value.shape == (2, 1, 96, 64)


def test_the_fourier_filter_is_a_circular_convolution():
    filter_ = FFParser(3, 16)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float32)
    kernel = torch.fft.irfft2(torch.view_as_complex(filter_.complex_weight.detach()), s=(16, 16))
    by_hand = sum(torch.roll(x, (i, j), (2, 3)) * kernel[:, i, j].reshape(1, 3, 1, 1) for i in range(16) for j in range(16))
    assert torch.allclose(filter_(x), by_hand, atol=1e-5)
    with torch.no_grad():
        filter_.complex_weight.zero_()[..., 0] = 1
    assert torch.allclose(filter_(x), x, atol=1e-6)


class TestEnsemDiff(NetworkContract):
    spaces = {2: [(16, 16), (13, 18)], 3: [(8, 8, 8), (6, 7, 9)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return EnsemDiff(32, (1, 1), 1, (2,), 2, image_channels=3, dims=dims)


class TestSegDiff(NetworkContract):
    spaces = {2: [(16, 16), (13, 18)], 3: [(8, 8, 8), (6, 7, 9)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return SegDiff(32, (1, 1), 1, (2,), 2, rrdb_blocks=1, dims=dims)


class TestMedSegDiff(NetworkContract):
    spaces = {2: [(32, 32), (20, 40)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return MedSegDiff((1, 1), 1, (2,), 2, highway_dropout=0.1)


class TestMedSegDiffV1(NetworkContract):
    spaces = {2: [(32, 32), (20, 40)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return MedSegDiffV1(32, (1, 1, 1, 1, 1), 1, (16,), 2, size=64, highway_dropout=0.1)
