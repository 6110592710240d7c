"""Autoencoders as networks and as a method: contracts, what the terms compare, and a tiny decoder that learns."""

import pytest
import torch
from diffusers import AutoencoderTiny
from torch.distributions import Normal, kl_divergence

from somite.contracts import NetworkContract
from somite.diffusion.autoencoding import Autoencoding, Distilled, Divergence
from somite.diffusion.latent import Autoencoder
from somite.diffusion.pictures import Grey
from somite.diffusion.terms import Clean
from somite.errors import InputError
from somite.networks.autoencoder import KLAutoencoder, TinyDecoder
from somite.nn.frozen import Part
from somite.nn.kl import kl_autoencoder
from somite.nn.tiny import Tiny
from somite.types import Noised, Output, Prediction

SIZES = {"channels": 32, "mults": (1, 2), "blocks": 1, "latent_channels": 3}


class TestKL(NetworkContract):
    mask_channels = 6  # two pictures
    spaces = {2: [(8, 8), (7, 5)]}  # noqa: RUF012

    def make(self, dims):
        return KLAutoencoder(**SIZES)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    kl_autoencoder(**SIZES).save_pretrained(folder)
    return folder


class TestTiny(NetworkContract):
    mask_channels = 3
    spaces = {2: [(8, 8), (7, 5)]}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def teacher(self, vae):
        self.vae = vae

    def make(self, dims):
        made = TinyDecoder(Part(str(self.vae)), width=8, blocks=1)
        made.tiny.scale.fill_(0.5)
        return made


def test_the_published_sizes():
    with torch.device("meta"):
        assert sum(p.numel() for p in KLAutoencoder().parameters()) == 83_653_863
        theirs = AutoencoderTiny()
        ours = Tiny()
    assert {n: p.shape for n, p in ours.layers.named_parameters()} == {n: p.shape for n, p in theirs.decoder.named_parameters()}


def test_divergence_against_torch():
    mean, log_var = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    theirs = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0, 1)).flatten(1).sum(1)
    pred = Prediction(mean, mean, Output(mean, aux={"mean": mean, "log_var": log_var}))
    torch.testing.assert_close(Divergence()(pred, Noised(mean, mean, mean, mean, torch.zeros(2))), theirs)


def test_evaluation_decodes_the_mean():
    network, x = KLAutoencoder(**SIZES).eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        theirs = network.autoencoder.decode(network.autoencoder.encode(x).latent_dist.mean).sample
        torch.testing.assert_close(network(x, torch.zeros(2, dtype=torch.long), {}).value, theirs)
        assert not torch.allclose(network.train()(x, torch.zeros(2, dtype=torch.long), {}).value, theirs)


def test_a_tiny_decoder_learns_what_its_teacher_does(vae, tmp_path):
    torch.manual_seed(0)
    network = TinyDecoder(Part(str(vae)), width=16, blocks=1)
    method = Autoencoding(network, {"teacher": Distilled()}).train()
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 3e-3)
    masks = (torch.rand(8, 1, 8, 8) > 0.5).float()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = method.loss(masks, {"target": masks})["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    teacher = network.teacher.module
    with torch.no_grad():  # its own scale, and not the codec's: the codec hands it unscaled latents
        z = teacher.encode(Grey().encode(masks)).latent_dist.mean
        torch.testing.assert_close(network.tiny(z), network.tiny.layers(network.tiny.scale * z))
    assert not any(name.startswith("network.teacher") for name in method.state_dict())


def test_the_codec_decodes_by_a_run_of_it(vae, tmp_path):
    from safetensors.torch import save_file

    network = TinyDecoder(Part(str(vae)), width=8, blocks=1)
    network.tiny.scale.fill_(0.7)
    save_file({f"network.{name}": value for name, value in network.state_dict().items()}, tmp_path / "weights.safetensors")
    (tmp_path / "recipe.yaml").write_text(
        "method: {init_args: {network: {class_path: somite.networks.autoencoder.TinyDecoder, init_args: {width: 8, blocks: 1}}}}"
    )
    codec = Autoencoder(Part(str(vae)), scale=2, posterior="mean", decoder=Part(str(tmp_path)))
    mask = (torch.rand(2, 1, 7, 8) > 0.5).float()
    z = codec.encode(mask)
    with torch.no_grad():
        expected = Grey().decode(network.tiny(z / 2), (2, 1, 8, 8))[:, :, :7]
        torch.testing.assert_close(codec.decode(z, (2, 1, 7, 8)), expected)
    (tmp_path / "recipe.yaml").write_text("method: {init_args: {network: {class_path: somite.networks.sdseg.SDSeg}}}")
    with pytest.raises(InputError, match="no run of a tiny decoder"):
        Autoencoder(Part(str(vae)), scale=2, decoder=Part(str(tmp_path)))


def test_a_tiny_decoder_needs_its_teacher():
    with pytest.raises(InputError, match=r"network\.teacher\.source"):
        TinyDecoder()


def test_the_target_is_the_condition():
    method = Autoencoding(KLAutoencoder(**SIZES), {"picture": Clean()})
    with pytest.raises(InputError, match="Reconstruction"):
        method.sample({"image": torch.zeros(1, 3, 8, 8)}, (1, 1, 8, 8))
