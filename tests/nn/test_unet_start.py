"""U-Nets that training starts from: published checkpoints and folders of diffusers give the same, widened by zeros."""

import json

import pytest
import torch

from official_sdseg import NETWORK, cases, close, state, tensor
from somite.errors import InputError
from somite.networks.sdseg import SDSeg
from somite.nn.frozen import Start
from somite.nn.latent_diffusion_names import UNET, part

FIRST = f"{UNET}input_blocks.0.0.weight"


def lsun():
    """As lsun_churches256 is: raw weights of four channels, beside an average and an autoencoder that are not to be taken."""
    unet = {UNET + name: tensor("lsun." + name, value.shape) for name, value in part(state(), UNET).items()}
    unet[FIRST] = unet[FIRST][:, :4].clone()
    return unet | {"model_ema.decay": torch.tensor(0.9), "scale_factor": torch.tensor(0.3), "first_stage_model.a": torch.ones(1)}


def started(tmp_path, entries, **sizes):
    torch.save({"state_dict": entries}, tmp_path / "model.ckpt")
    return SDSeg(**NETWORK | sizes, unet_start=Start(str(tmp_path / "model.ckpt")))


@torch.no_grad()
def test_sdsegs_own(tmp_path):
    case, network = cases(), started(tmp_path, state()).eval()
    x = case["unet_x"]
    close(network(x[:, :4], case["unet_t"], {"features": x[:, 4:]}).value, case["unet_out"])
    network.unet.save_pretrained(tmp_path / "all" / "unet")
    for source in (tmp_path / "all", tmp_path / "all" / "unet"):
        again = SDSeg(**NETWORK, unet_start=Start(str(source))).eval()
        close(again(x[:, :4], case["unet_t"], {"features": x[:, 4:]}).value, case["unet_out"])


@torch.no_grad()
def test_an_unconditional_model_is_widened_by_zeros(tmp_path):
    network = started(tmp_path, lsun())
    first = network.unet.conv_in.weight
    assert torch.equal(first[:, :4], lsun()[FIRST]) and not first[:, 4:].any()
    assert torch.equal(network.unet.time_embedding.linear_1.weight, lsun()[f"{UNET}time_embed.0.weight"])
    x, t = cases()["unet_x"], cases()["unet_t"]
    one, other = (network.eval()(x[:, :4], t, {"features": c}).value for c in (x[:, 4:], torch.zeros_like(x[:, 4:])))
    assert one.any()
    close(one, other)


def test_another_size_says_what_differs(tmp_path):
    with pytest.raises(InputError, match=r"channels 32 there and 64 here; give --method"):
        started(tmp_path, lsun(), channels=64)
    with pytest.raises(InputError, match=r"mults \[1, 2, 2\] there and \[1, 2, 4\] here"):
        started(tmp_path, lsun(), mults=(1, 2, 4))
    with pytest.raises(InputError, match=r"attention \[1, 2\] there and \[2\] here"):
        started(tmp_path, lsun(), attention=(2,))
    with pytest.raises(InputError, match=r"1 entries differ from this one's, class_embedding\.weight for one"):
        started(tmp_path, state() | {f"{UNET}label_emb.weight": torch.zeros(4, 128)})


def test_what_is_no_unet_is_told(tmp_path):
    with pytest.raises(InputError, match=r"holds no U-Net of latent diffusion: .* the first are scale_factor"):
        started(tmp_path, {"scale_factor": torch.ones(1)})
    with pytest.raises(InputError, match=r"input_blocks\.1\.1\.transformer_blocks.* has no place"):
        started(tmp_path, lsun() | {f"{UNET}input_blocks.1.1.transformer_blocks.0.norm1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"conv_out\.weight is missing"):
        started(tmp_path, {name: value for name, value in lsun().items() if name != f"{UNET}out.2.weight"})
    with pytest.raises(InputError, match="concat, not cross-attention"):
        started(tmp_path, lsun(), fusion="cross-attention")
    with pytest.raises(InputError, match=r"no config\.json"):
        SDSeg(**NETWORK, unet_start=Start(str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(InputError, match="holds a UNet2DConditionModel"):
        SDSeg(**NETWORK, unet_start=Start(str(tmp_path)))
