"""Networks answer the same with and without, in diffusers' own blocks; gradients, weights and state dicts are untouched."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from somite.nn import winograd
from somite.nn.adm import adm_unet
from somite.nn.inference import few, inference
from somite.nn.kl import kl_autoencoder
from somite.nn.tiny import Tiny


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return kl_autoencoder(64, (1, 1), 1).eval()


def calls(run):
    """Names of torch's operators, and how often each was called."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    return {event.key.removeprefix("aten::"): event.count for event in found.key_averages()}


def close(ours, theirs, relative):
    assert (ours - theirs).abs().max() <= relative * theirs.abs().max()


@torch.no_grad()
def test_a_decoder_and_an_encoder(autoencoder):
    z, image = torch.randn(2, 4, 20, 17), torch.rand(2, 3, 40, 34) * 2 - 1
    decoded, encoded = autoencoder.decode(z).sample, autoencoder.encode(image).latent_dist.mean
    with inference("winograd"):
        close(autoencoder.decode(z).sample, decoded, 1e-4)
        close(autoencoder.encode(image).latent_dist.mean, encoded, 1e-4)
        if winograd.available():
            assert not torch.equal(autoencoder.decode(z).sample, decoded)  # it was another way
    with inference("winograd", exact=True):
        close(autoencoder.decode(z).sample, decoded, 1e-5)
    for same in (autoencoder.decode(z).sample, direct(autoencoder, z)):
        assert torch.equal(same, decoded)


def direct(autoencoder, z):
    with inference("direct"):
        return autoencoder.decode(z).sample


@torch.no_grad()
def test_a_tiny_decoder():
    tiny, z = Tiny(levels=2, blocks=1).eval(), torch.randn(1, 4, 20, 20)
    tiny.scale.fill_(1)
    expected = tiny(z)
    with inference("winograd"):
        close(tiny(z), expected, 1e-4)


@torch.no_grad()
def test_a_unet_to_rounding():
    """Whose last levels have few pixels, whose attention lies channels-last, and whose norms are scaled before the SiLU."""
    unet = adm_unet(8, 4, 32, (1, 2, 2), 1, (1, 2), 4).eval()
    for weight in unet.parameters():
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.02)
    x, t = torch.randn(2, 8, 12, 12), torch.tensor([999, 3])
    expected = unet(x, t).sample
    with inference("winograd", exact=True):
        close(unet(x, t).sample, expected, 1e-5)
        close(unet(x[1:], t[1:]).sample, expected[1:], 1e-5)


@torch.no_grad()
def test_what_is_saved(autoencoder):
    z = torch.randn(1, 4, 20, 20)

    def answer():
        with inference("winograd"):
            autoencoder.decode(z)

    plain, ours = calls(lambda: autoencoder.decode(z)), calls(answer)
    assert "div" in plain and "div" not in ours  # by 1
    assert "silu_" not in plain and ours["silu_"] == plain["silu"] and "silu" not in ours
    if winograd.available():
        assert ours["_nnpack_spatial_convolution"] > 0


@torch.no_grad()
def test_only_what_nobody_else_has_is_overwritten():
    norm, x = nn.GroupNorm(1, 4), torch.randn(1, 4, 3)
    kept = x.clone()
    with inference("winograd"):
        F.silu(x)
        normed = norm(x)
        F.silu(x)
        assert torch.equal(x, kept)
        assert F.silu(normed) is normed
        half = x / 2
        assert x / 1 is x and torch.equal(half, 0.5 * kept)
        assert (torch.tensor([3]) / 1).dtype == torch.float32
        torch.testing.assert_close(torch.div(torch.tensor([3.0]), 2, rounding_mode="floor"), torch.tensor([1.0]))


@pytest.mark.parametrize("size", [(4, 4), (2, 2), (1, 3), (8, 2)])
@torch.no_grad()
def test_few_pixels(size):
    conv, x = nn.Conv2d(6, 5, 3, padding=1), torch.randn(2, 6, *size)
    assert few(x, conv.weight, padding=1)
    with inference("winograd", exact=True):
        found = conv(x)
        odd = nn.Conv2d(6, 5, 3, padding=1, stride=2)(x)
    torch.testing.assert_close(found, conv(x))
    assert odd.shape[2] == -(-size[0] // 2)
    assert not few(x, conv.weight) and not few(torch.empty(1, 6, 4, 5), conv.weight, padding=1)


def test_gradients_are_of_the_direct_way(autoencoder):
    names = [*autoencoder.state_dict()]
    z = torch.randn(1, 4, 20, 20)
    found = []
    for how in ("winograd", "direct"):
        given = z.clone().requires_grad_()
        with inference(how):
            decoded = autoencoder.decode(given).sample
        decoded.sum().backward()
        found.append((decoded.detach(), given.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert [*autoencoder.state_dict()] == names
