"""SDSeg gives what the official program gave: networks, losses, gradients, one step and its DDIM."""

import sys

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from official_sdseg import NETWORK, cases, close, method, state
from somite import rng
from somite.contracts import NetworkContract, alive
from somite.diffusion.samplers import DDIM
from somite.errors import InputError
from somite.networks.sdseg import SDSeg
from somite.nn import winograd
from somite.nn.frozen import Start
from somite.nn.kl import kl_autoencoder
from somite.trainer.callbacks import Averaged
from somite.types import Noised
from somite.weights.sdseg import translated

SMALL = {"channels": 32, "mults": (1, 1), "res_blocks": 1, "attention": (1,), "heads": 2, "encoder_channels": 32, "encoder_mults": (1, 1)}


def test_published_sizes():
    with torch.device("meta"):
        network = SDSeg()
    assert len(network.unet.state_dict()) == 520 + 2 * 2 * 21  # q, k and v of 21 attentions apart
    assert sum(p.numel() for p in network.unet.parameters()) == 294_973_828
    assert sum(p.numel() for p in network.vision.parameters()) == 34_163_628
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 329_137_456


@torch.no_grad()
def test_networks():
    case, network = cases(), method().network
    x = case["unet_x"]
    close(network(x[:, :4], case["unet_t"], {"features": x[:, 4:]}).value, case["unet_out"])
    close(network.encode({"image": case["image"]})["features"], case["cond"])
    assert not torch.allclose(network(x[:, 4:], case["unet_t"], {"features": x[:, :4]}).value, case["unet_out"], atol=0.1)


def noised(t):
    case, schedule = cases(), method().schedule
    t = torch.tensor([t])
    alpha, sigma = schedule(t)
    x_t = alpha * case["z0"] + sigma * case["loss_noise"]
    return Noised(case["mask"][None, None], case["z0"], case["loss_noise"], x_t, t)


def losses(t):
    ex = noised(t)
    cond = method().network.encode({"image": cases()["image"]})
    return method().total(method().denoise(ex.x_t, ex.t, cond), ex)


def test_losses_and_gradients():
    case = cases()
    close(noised(321).x_t, case["z_t"])
    method().zero_grad()
    ours = losses(321)
    ours["loss"].backward()
    close(ours["noise"].double(), case["loss_noise_l1"])
    close(ours["latent"].double(), case["loss_latent_l1"])
    close(ours["loss"], case["loss_total"])
    ours = {name: p.grad for name, p in method().named_parameters()}
    assert all((grad is None) == name.startswith("codec.") for name, grad in ours.items())
    theirs = {name.removeprefix("grad::"): value for name, value in case.items() if name.startswith("grad::")}
    assert len(theirs) == 6
    rest = {name: torch.zeros_like(value) for name, value in state().items()}
    wanted = translated({**rest, **theirs}, averaged=False)  # gradients have the places of their weights
    compared = [name for name, value in wanted.items() if value.any()]
    assert len(compared) == 8
    for name in compared:
        close(ours[name], wanted[name])
    for part, key in (("network.unet.", "grad_norm_unet"), ("network.vision.", "grad_norm_cond")):
        close(torch.stack([grad.norm() for name, grad in ours.items() if name.startswith(part)]).norm().double(), case[key])


@torch.no_grad()
def test_losses_by_timestep():
    """The latent loss is sqrt(1 / alpha_bar - 1) times the noise loss."""
    for t, row in zip(cases()["loss_ts"].tolist(), cases()["loss_table"], strict=True):
        ours = losses(t)
        close(torch.stack([ours["noise"], ours["latent"], ours["loss"]]).double(), row)
        alpha, sigma = method().schedule.at(t)
        assert float(ours["latent"] / ours["noise"]) == pytest.approx(sigma / alpha, rel=1e-5)


@pytest.mark.parametrize("averaged", [False, True])
def test_one_step(averaged, monkeypatch):
    case, ours = cases(), method(averaged)
    case = {name: case[f"infer_{name}{'_ema' * averaged}"] for name in ("eps", "z0", "decoded", "prob", "mask")} | {"n": case["init_noise"]}
    monkeypatch.setattr(rng, "normal", lambda shape, device: case["n"])
    cond, shape = {"image": cases()["image"]}, (1, 1, 64, 64)
    first, last = ours.trajectory(cond, shape)
    assert first.t == 999
    close(first.pred.eps, case["eps"])
    close(last.x, case["z0"])
    with torch.no_grad():
        close(ours.codec.autoencoder.decode(last.x / 0.2).sample, case["decoded"])
    probability = ours.sample(cond, shape)
    close(probability[:, 0], case["prob"])
    assert torch.equal(probability[:, 0] > 0.5, case["mask"])
    assert not torch.allclose(first.pred.eps, ours.denoise(case["n"], torch.tensor([0]), ours.network.encode(cond)).eps, atol=0.1)


@pytest.mark.parametrize("steps", [2, 10])
@torch.no_grad()
def test_ddim(steps):
    """The official sampler neither starts at T-1 nor ends at the clean target, so its timesteps are walked by hand with our formula."""
    case, ours = cases(), method()
    cond, x = ours.network.encode({"image": case["image"]}), case["init_noise"]
    ts = case[f"ddim{steps}_timesteps"].flip(0).tolist()
    for t, s in zip(ts, [*ts[1:], 0], strict=True):
        x = DDIM().step(ours.denoise(x, torch.tensor([t]), cond), x, ours.schedule.at(t), ours.schedule.at(s))
    close(x, case[f"ddim{steps}_out"])


def test_schedule():
    alpha_bar = torch.tensor([method().schedule.at(t)[0] ** 2 for t in range(1000)])
    close(alpha_bar, cases("misc")["sched::alphas_cumprod"], 1e-5)
    assert float(alpha_bar[-1]) == pytest.approx(6.68665e-4, abs=1e-8)
    w = [sigma / alpha for alpha, sigma in map(method().schedule.at, range(1000))]
    assert w[999] == pytest.approx(38.65898, rel=1e-5)
    assert sum(w) / 1000 == pytest.approx(6.13374, rel=1e-5)
    assert sum(one < 1 for one in w) == 269


def test_averaged_weights():
    """The published average starts from the untrained weights, ours from those after the first step; from then on they are one."""
    model = torch.nn.ParameterList([cases("misc")["ema_start"].clone()])
    average = AveragedModel(model, **Averaged(0.9999)._kwargs)
    average.n_averaged.fill_(1)
    for theirs in cases("misc")["ema_traj"]:
        with torch.no_grad():
            model[0].add_(0.1)
        average.update_parameters(model)
        close(average.module[0].detach(), theirs)


def test_training_starts_from_a_copy_of_the_autoencoder(tmp_path):
    autoencoder = kl_autoencoder(32, (1, 1), 2)
    autoencoder.save_pretrained(tmp_path)
    network = SDSeg(**SMALL, encoder_start=Start(str(tmp_path)))
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(network.eval().vision.encoder(image), autoencoder.encoder(image))
    with pytest.raises(InputError, match="encoder_channels"):
        network.start_from(kl_autoencoder(64, (1, 1), 2))


@pytest.mark.parametrize(
    ("training", "share"), [("full", {"conv_in", "down_blocks", "mid_block", "conv_norm_out", "conv_out"}), ("frozen", set())]
)
def test_what_of_the_encoder_is_trained(training, share):
    network = SDSeg(**SMALL, encoder_training=training)
    assert {name.split(".")[0] for name, p in network.vision.encoder.named_parameters() if p.requires_grad} == share
    assert all(p.requires_grad for p in [*network.vision.out.parameters(), *network.unet.parameters()])
    image = {"image": torch.randn(1, 3, 8, 8)}
    same = torch.equal(network.train().encode(image)["features"], network.encode(image)["features"])
    assert same == (training == "frozen")  # dropout


def test_a_part_of_the_encoder_is_trained():
    network = SDSeg(**SMALL, encoder_training="partial")
    trained = {name for name, p in network.vision.encoder.named_parameters() if p.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in trained if name.startswith("down")} == {"down_blocks.1"}
    assert not any(name.startswith("conv_in") for name in trained)
    alive(network)(torch.randn(1, 4, 4, 4), torch.tensor([5]), {"image": torch.randn(1, 3, 8, 8)}).value.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("fusion", ["concat", "cross-attention"])
def test_training_starts_with_residual_branches_and_output_at_zero(fusion):
    """As the official program's start from scratch."""
    network = SDSeg(**SMALL, fusion=fusion)
    zero = {name for name, p in network.named_parameters() if p.ndim > 1 and not p.any()}
    ends = (".conv2.weight", ".to_out.0.weight", "unet.conv_out.weight")
    assert zero == {name for name, _ in network.named_parameters() if name.startswith("unet.") and name.endswith(ends)}
    assert not network(torch.randn(1, 4, 4, 4), torch.tensor([5]), {"image": torch.randn(1, 3, 8, 8)}).value.any()


def test_grey_images_are_copied_and_others_refused():
    network = SDSeg(**SMALL).eval()
    grey = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network.encode({"image": grey})["features"], network.encode({"image": grey.repeat(1, 3, 1, 1)})["features"])
    for shape in ((1, 2, 8, 8), (1, 3, 8, 8, 8)):
        with pytest.raises(InputError, match=r"preprocess\.channels"):
            network.encode({"image": torch.randn(shape)})


def test_a_codec_of_another_reduction_is_refused():
    with pytest.raises(InputError, match="encoder_mults"):
        SDSeg(**SMALL)(torch.randn(1, 4, 8, 8), torch.tensor([5]), {"image": torch.randn(1, 3, 8, 8)})


def test_latents_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"have 8 channels but this SDSeg is for 4.*latent_channels"):
        SDSeg(**SMALL)(torch.randn(1, 8, 4, 4), torch.tensor([5]), {"image": torch.randn(1, 3, 8, 8)})


def test_classes_cost_their_embedding_alone():
    """The specification's 768 weights a class."""
    with torch.device("meta"):
        binary, several = (sum(p.numel() for p in SDSeg(classes=classes).unet.parameters()) for classes in (0, 9))
    assert (binary, several - binary) == (294_973_828, 9 * 768)


def test_without_diffusers(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match="pip install 'somite"):
        SDSeg(**NETWORK)


class TestSDSeg(NetworkContract):
    """x are latents, half the image's size here."""

    mask_channels = 4
    spaces = {2: [(4, 4), (5, 3)]}  # noqa: RUF012
    tolerance = 1e-4

    def make(self, dims):
        return SDSeg(**SMALL)

    def given(self, b, space):
        h, w = space
        x, t, _ = super().given(b, space)
        return x, t, {"image": torch.rand(b, self.image_channels, 2 * h - 1, 2 * w)}


class TestCrossAttention(TestSDSeg):
    def make(self, dims):
        return SDSeg(**SMALL, fusion="cross-attention")


@pytest.mark.skipif(not winograd.available(), reason="this torch or processor has no NNPACK")
def test_winograds_way_is_for_answers_alone(monkeypatch):
    """With every 3x3 convolution done by it, the published outputs are still met; "direct", training and encoding masks know none of it."""
    count = []
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "SIZE", 1)
    monkeypatch.setattr("somite.nn.inference.winograd", lambda *args: count.append(1) or winograd.winograd(*args))
    case, ours = cases(), method()
    image, z = {"image": case["image"]}, case["z0"]
    with torch.no_grad():
        close(ours.network.encode(image)["features"], case["cond"])
        vision = len(count)
        close(ours.codec.decode(z, (1, 1, 64, 64)), ((case["dec_of_z0"] + 1) / 2).clamp(0, 1).mean(1, keepdim=True))
        both = len(count)
        ours.codec.encode(case["mask"][None, None])
        ours.network(case["init_noise"], torch.tensor([999]), {"features": case["cond"]})
        ours.network.convolutions = ours.codec.convolutions = "direct"
        ours.network.encode(image)
        ours.codec.decode(z, (1, 1, 64, 64))
    ours.network.convolutions = ours.codec.convolutions = "winograd"
    ours.network.encode(image)  # gradients are asked for
    assert 0 < vision < both == len(count)
