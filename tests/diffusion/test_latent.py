"""Masks and latents as in the official SDSeg, sizes of all kinds, and folders of autoencoders that are not whole."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from official_sdseg import CODEC, cases, close, method
from somite import rng
from somite.diffusion.codec import OneHot, Signed
from somite.diffusion.latent import Autoencoder
from somite.diffusion.pictures import Layers, Palette
from somite.errors import InputError
from somite.nn.frozen import Part
from somite.nn.kl import WEIGHTS, kl_autoencoder, load_autoencoder

TINY = {"autoencoder_channels": 32, "autoencoder_mults": (1, 1), "autoencoder_blocks": 1}
FIXED = {**TINY, "scale": 0.125}


@torch.no_grad()
def test_published_size():
    with torch.device("meta"):
        codec = Autoencoder(scale=1)
    assert sum(p.numel() for p in codec.parameters()) == 83_653_863
    assert len(codec.state_dict()) == 248
    assert codec.shape((2, 1, 256, 256)) == (2, 4, 32, 32)


def test_encoding(monkeypatch):
    case, codec = cases(), method().codec
    mask = case["mask"][None, None]
    with torch.no_grad():
        found = codec.autoencoder.encode((2 * mask - 1).repeat(1, 3, 1, 1)).latent_dist
    close(found.parameters, case["enc_moments"])
    close(found.mean, case["enc_mean"])
    close(found.std, case["enc_std"])
    monkeypatch.setattr(rng, "normal", lambda shape, device: case["post_eps"])
    close(codec.encode(mask), case["z0"])
    monkeypatch.setattr(codec, "posterior", "mean")
    close(codec.encode(mask), 0.2 * case["enc_mean"])


@torch.no_grad()
def test_decoding():
    case, codec = cases(), method().codec
    decoded = case["dec_of_z0"]
    close(codec.autoencoder.decode(case["z0"] / 0.2).sample, decoded)
    close(codec.decode(case["z0"], (1, 1, 64, 64)), ((decoded + 1) / 2).clamp(0, 1).mean(1, keepdim=True))
    close(codec.decode(case["infer_z0"], (1, 1, 64, 64))[:, 0], case["infer_prob"])


@pytest.mark.parametrize("space", [(16, 16), (15, 9), (1, 2)])
def test_any_size_comes_back(space):
    codec = Autoencoder(**FIXED)
    mask = (torch.rand(2, 1, *space) > 0.5).float()
    z = codec.encode(mask)
    assert tuple(z.shape) == codec.shape(tuple(mask.shape))
    probability = codec.decode(z, tuple(mask.shape))
    assert probability.shape == mask.shape
    assert probability.min() >= 0 and probability.max() <= 1


def test_far_edges_are_repeated():
    codec = Autoencoder(**FIXED, posterior="mean")
    mask = (torch.rand(1, 1, 5, 6) > 0.5).float()
    torch.testing.assert_close(codec.encode(mask), codec.encode(torch.cat([mask, mask[:, :, -1:]], 2)))


def test_its_scale_changes_no_answer():
    one, ten = Autoencoder(**TINY, scale=1, posterior="mean"), Autoencoder(**TINY, scale=10, posterior="mean")
    ten.load_state_dict(one.state_dict())
    mask = (torch.rand(1, 1, 8, 8) > 0.5).float()
    close(ten.encode(mask), 10 * one.encode(mask))
    close(ten.decode(ten.encode(mask), (1, 1, 8, 8)), one.decode(one.encode(mask), (1, 1, 8, 8)))


def test_the_first_training_batch_gives_the_scale():
    codec = Autoencoder(**TINY, posterior="mean").train()
    masks = (torch.rand(4, 1, 8, 8) > 0.5).float(), (torch.rand(4, 1, 8, 8) > 0.9).float()
    assert float(codec.encode(masks[0]).std()) == pytest.approx(1, rel=1e-5)
    measured = codec.scale.clone()
    codec.encode(masks[1])
    assert torch.equal(codec.scale, measured)
    other = Autoencoder(**TINY).eval()
    with pytest.raises(InputError, match="never measured"):
        other.encode(masks[0])
    other.load_state_dict(codec.state_dict())
    close(other.decode(codec.encode(masks[0]), (4, 1, 8, 8)), codec.decode(codec.encode(masks[0]), (4, 1, 8, 8)))
    assert "scale" not in Autoencoder(**FIXED).state_dict()  # a recipe's number stays in the recipe


def test_random_latents_are_not_trained_on():
    with pytest.raises(InputError, match="random weights"):
        Autoencoder(**TINY).begin()


def test_samples_are_rows_of_their_own():
    codec = Autoencoder(**FIXED)
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    with rng.seeded(0, ["a", "b"]):
        both = codec.encode(mask)
    with rng.seeded(0, ["b"]):
        torch.testing.assert_close(codec.encode(mask[1:]), both[1:])
    with rng.seeded(1, ["b"]):
        assert not torch.allclose(codec.encode(mask[1:]), both[1:])


def test_it_never_trains():
    codec = Autoencoder(**FIXED).train()
    assert codec.training and not codec.autoencoder.training
    assert not any(p.requires_grad for p in codec.parameters())
    z = codec.encode(torch.ones(1, 1, 8, 8)).requires_grad_()
    codec.decode(z, (1, 1, 8, 8)).sum().backward()  # a loss in pixels could reach the latents
    assert z.grad.any()


@pytest.mark.parametrize(("shape", "said"), [((1, 3, 8, 8), "one map of class indices"), ((1, 1, 8, 8, 8), "2D images and slices")])
def test_what_is_no_binary_mask_in_2d_is_refused(shape, said):
    with pytest.raises(InputError, match=said):
        Autoencoder(**FIXED).shape(shape)


class Spy(torch.nn.Module):
    """Counts what a KL autoencoder is asked."""

    def __init__(self, kl):
        super().__init__()
        self.kl, self.config, self.decoded = kl, kl.config, []

    def encode(self, x):
        return self.kl.encode(x)

    def decode(self, z):
        self.decoded.append(len(z))
        return self.kl.decode(z)


@pytest.mark.parametrize(("picture", "latents", "decoded"), [(Palette(5), 4, 2), (Layers(5), 16, 8), (Signed(channels=3), 4, 2)])
def test_classes_and_photographs(picture, latents, decoded):
    """Five classes as colours are one latent and one decoding, as layers one a class."""
    codec = Autoencoder(**FIXED, picture=picture)
    codec.autoencoder = Spy(codec.autoencoder)
    target = torch.rand(2, 3, 9, 8) if isinstance(picture, Signed) else torch.randint(5, (2, 1, 9, 8))
    z = codec.encode(target)
    assert tuple(z.shape) == codec.shape(tuple(target.shape)) == (2, latents, 5, 4)
    found = codec.decode(z, tuple(target.shape))
    assert found.shape == (2, picture.maps, 9, 8)
    assert codec.autoencoder.decoded == [decoded]
    if codec.maps == 5:
        torch.testing.assert_close(found.sum(1), torch.ones(2, 9, 8))


def test_layers_are_encoded_each_by_itself():
    codec = Autoencoder(**FIXED, picture=Layers(3), posterior="mean")
    one = Autoencoder(**FIXED, posterior="mean")
    one.load_state_dict(codec.state_dict())
    target = torch.randint(3, (2, 1, 8, 8))
    close(codec.encode(target), torch.cat([one.encode(target == 1), one.encode(target == 2)], 1))


def test_a_picture_that_is_no_image_of_the_autoencoder():
    with pytest.raises(InputError, match="4 channels"):
        Autoencoder(**FIXED, picture=OneHot(4))
    assert Autoencoder(**FIXED, picture=OneHot(4), image_channels=4).maps == 4


def test_a_scale_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"codec\.scale"):
        Autoencoder(**TINY, scale=0)


@pytest.fixture
def folder(tmp_path):
    kl_autoencoder(32, (1, 2), 1, latent_channels=3).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_gives_sizes_and_weights(folder):
    codec = Autoencoder(Part(str(folder)), scale=1)
    assert codec.channels == 3 and codec.reduction == 2
    stored = load_file(folder / WEIGHTS)
    assert all(torch.equal(value, stored[name]) for name, value in codec.kl.state_dict().items())
    assert not codec.state_dict()  # a frozen part, stored apart
    assert Autoencoder(**FIXED).state_dict()  # the run's own


def test_a_folder_with_the_older_names_of_attention(folder):
    """As Stable Diffusion v1's is."""
    stored = load_file(folder / WEIGHTS)
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, value in stored.items():
        new = next((name.replace(now, then) for now, then in older.items() if now in name), name)
        renamed[new] = value
    assert renamed.keys() != stored.keys()
    save_file(renamed, folder / WEIGHTS, {"format": "pt"})
    assert all(torch.equal(value, stored[name]) for name, value in load_autoencoder(folder).state_dict().items())


def drop(folder, name):
    (folder / name).unlink()


def shorten(folder):
    stored = load_file(folder / WEIGHTS)
    stored.pop("decoder.conv_in.weight")
    save_file(stored, folder / WEIGHTS, {"format": "pt"})


def reshape(folder):
    stored = load_file(folder / WEIGHTS)
    stored["decoder.conv_in.weight"] = torch.zeros(3, 3, 3, 3)
    save_file(stored, folder / WEIGHTS, {"format": "pt"})


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def rename(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DModel"}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: drop(folder, "config.json"), "config.json is not there"),
        (lambda folder: drop(folder, WEIGHTS), f"{WEIGHTS} is not there"),
        (shorten, "decoder.conv_in.weight"),
        (reshape, "cannot be read"),
        (truncate, "cannot be read"),
        (rename, "holds a UNet2DModel"),
    ],
)
def test_folders_that_are_not_whole(folder, harm, said):
    harm(folder)
    with pytest.raises(InputError, match=said):
        load_autoencoder(folder)


def test_the_small_configuration_is_the_official_one():
    assert sum(p.numel() for p in Autoencoder(**CODEC).parameters()) == 1_732_679


def test_a_teachers_probabilities_have_the_latents_of_their_picture():
    codec, mask = Autoencoder(**FIXED, posterior="mean"), (torch.rand(2, 1, 16, 16) > 0.5).float()
    torch.testing.assert_close(codec.place(mask), codec.encode(mask))
    assert not torch.equal(codec.place(mask / 2 + 0.25), codec.encode(mask))
