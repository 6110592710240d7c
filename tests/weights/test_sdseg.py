"""The names of the official SDSeg's checkpoints become ours, as a comparison of the two programs found them to correspond."""

import csv
import gzip
from pathlib import Path

import pytest
import torch

from official_sdseg import CODEC, NETWORK, REFERENCE, cases, close, layout, state
from somite.diffusion.latent import Autoencoder
from somite.errors import InputError
from somite.networks.sdseg import SDSeg
from somite.nn.latent_diffusion_names import UNET, part, unet_levels, unet_translated, widened
from somite.weights.sdseg import AVERAGE, architecture, autoencoder, recognises, translated

PLACES = {"UNet2DModel": "network.unet.", "AutoencoderKL": "codec.autoencoder.", "vae.Encoder": "network.vision.encoder."}
HERE = Path("model.ckpt")


def real():
    """A checkpoint of the published size, without its numbers."""
    return {name: torch.empty(shape, device="meta") for name, shape in layout("real_binary").items()}


def test_published_names():
    ours = translated(real(), averaged=False)
    rows = list(csv.DictReader(gzip.decompress((REFERENCE / "key_map_real.csv.gz").read_bytes()).decode().splitlines()))
    theirs = {PLACES.get(row["target_module"], "network.vision.out.") + row["target_key"].removeprefix("out.") for row in rows}
    assert len(rows) == len(ours) == 960
    assert ours.keys() == theirs
    with torch.device("meta"):
        network, codec = SDSeg(**architecture(real(), HERE)), Autoencoder(scale=1)
    wanted = {f"network.{name}": value.shape for name, value in network.state_dict().items()}
    wanted |= {f"codec.{name}": value.shape for name, value in codec.state_dict().items()}
    assert {name: value.shape for name, value in ours.items()} == wanted


def test_each_entry_goes_to_its_own_place():
    """Told by its number: each tensor holds its line in the list of names."""
    rows = list(csv.DictReader(gzip.decompress((REFERENCE / "key_map_real.csv.gz").read_bytes()).decode().splitlines()))
    numbered = {name: torch.tensor(float(index)).expand(shape) for index, (name, shape) in enumerate(layout("real_binary").items())}
    ours = translated(numbered, averaged=False)
    for row in rows:
        place = PLACES.get(row["target_module"], "network.vision.out.") + row["target_key"].removeprefix("out.")
        assert ours[place].flatten()[0] == numbered[row["official_key"]].flatten()[0], row


def test_sizes_are_read_off():
    assert architecture(real(), HERE) == {
        "channels": 192,
        "mults": [1, 2, 2, 4, 4],
        "res_blocks": 2,
        "attention": [1, 2, 4, 8],
        "encoder_channels": 128,
        "encoder_mults": [1, 2, 4, 4],
        "encoder_blocks": 2,
        "latent_channels": 4,
        "image_channels": 3,
    }
    ours = architecture(state(), HERE)
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in ours.items()}.items() >= NETWORK.items()
    ours = autoencoder(state())
    assert ours["scale"] == pytest.approx(0.2)
    assert tuple(ours["autoencoder_mults"]) == CODEC["autoencoder_mults"]
    assert ours["autoencoder_channels"] == CODEC["autoencoder_channels"]
    assert (ours["autoencoder_blocks"], ours["latent_channels"]) == (2, 4)


def test_the_average_is_the_unets_alone():
    raw, averaged = translated(state(), averaged=False), translated(state())
    differ = {name for name in raw if not torch.equal(raw[name], averaged[name])}
    assert differ == {name for name in raw if name.startswith("network.unet.")}


def test_what_is_recognised():
    names = [*layout("real_binary")]
    assert recognises(names)
    assert recognises([*state()])
    for without in ("scale_factor", UNET, "cond_stage_model.", "first_stage_model."):
        assert not recognises([name for name in names if not name.startswith(without)])
    assert recognises([name for name in names if not name.startswith(AVERAGE)])


def test_parts_and_several_classes_are_told():
    with pytest.raises(InputError, match=r"out\.2\.weight is missing"):
        architecture({name: value for name, value in state().items() if name != f"{UNET}out.2.weight"}, HERE)
    with pytest.raises(InputError, match="several classes"):
        architecture(state() | {f"{UNET}label_emb.weight": torch.zeros(4, 128)}, HERE)


def test_damage_is_told():
    entries = state()
    average = next(name for name in entries if name.startswith(AVERAGE))
    with pytest.raises(InputError, match="average lacks 1 entries"):
        translated({name: value for name, value in entries.items() if name != average})
    with pytest.raises(InputError, match=r"input_blocks\.1\.2\.op has no place"):
        unet_translated(part(entries, UNET) | {"input_blocks.1.2.op.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="heads 5 does not divide the 32 channels"):
        translated(entries, heads=5)


RESIDUAL = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3")
ATTENTION = ("norm", "qkv", "proj_out")


def imagined(levels, blocks, attention):
    """The U-Net's names at another size (skip connections apart), blocks numbered through on either side."""
    paths, index = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"], 0
    for level in range(levels):
        for block in range(blocks + (level < levels - 1)):
            index += 1
            paths += [f"input_blocks.{index}.0.{end}" for end in RESIDUAL]
            if block < blocks and 2**level in attention:
                paths += [f"input_blocks.{index}.1.{end}" for end in ATTENTION]
    paths += [f"middle_block.{i}.{end}" for i, ends in enumerate((RESIDUAL, ATTENTION, RESIDUAL)) for end in ends]
    index = -1
    for level in reversed(range(levels)):
        for block in range(blocks + 1):
            index += 1
            kinds = [RESIDUAL, *[ATTENTION] * (2**level in attention), *[RESIDUAL] * (block == blocks and level > 0)]
            paths += [f"output_blocks.{index}.{i}.{end}" for i, ends in enumerate(kinds) for end in ends]
    return {f"{path}.{kind}": torch.zeros(24, 1) for path in paths for kind in ("weight", "bias")}


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("attention", [(1,), (4,), (2, 4), ()])
def test_other_sizes(blocks, attention):
    unet = imagined(3, blocks, attention)
    found = unet_levels(unet, 24)
    assert (found["res_blocks"], tuple(found["attention"]), len(found["mults"])) == (blocks, attention, 3)
    with torch.device("meta"):
        network = SDSeg(**NETWORK | {"res_blocks": blocks, "attention": attention})
    assert unet_translated(unet).keys() == {name for name in network.unet.state_dict() if "conv_shortcut" not in name}


def test_a_start_from_an_unconditional_model():
    """At first the image changes nothing, yet the convolution that sees it gets a gradient."""
    unet = part(state(), UNET)
    unet["input_blocks.0.0.weight"] = unet["input_blocks.0.0.weight"][:, :4]
    network = SDSeg(**NETWORK).eval()
    network.unet.load_state_dict(widened(unet_translated(unet), 8))
    x, t = cases()["unet_x"], cases()["unet_t"]
    one, other = (network(x[:, :4], t, {"features": c}).value for c in (x[:, 4:], torch.zeros_like(x[:, 4:])))
    close(one, other)
    one.sum().backward()
    grad = network.unet.conv_in.weight.grad
    assert grad[:, 4:].any()
