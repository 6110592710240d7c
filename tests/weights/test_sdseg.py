"""The names of the official SDSeg's checkpoints become ours, as a comparison of the two programs found them to correspond."""

import csv
import gzip
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import somite
from official_sdseg import CODEC, NETWORK, REFERENCE, cases, close, layout, state
from somite import rng
from somite.cli import main
from somite.diffusion.latent import Autoencoder
from somite.errors import InputError
from somite.networks.sdseg import SDSeg
from somite.nn.latent_diffusion_names import UNET, part, unet_levels, unet_translated, widened
from somite.weights.importer import import_run
from somite.weights.sdseg import AVERAGE, SDSegImporter, architecture, autoencoder, translated

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
        "classes": 0,
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
    names, recognises = [*layout("real_binary")], SDSegImporter().recognises
    assert recognises(names)
    assert recognises([*state()])
    for without in ("scale_factor", UNET, "cond_stage_model.", "first_stage_model."):
        assert not recognises([name for name in names if not name.startswith(without)])
    assert recognises([name for name in names if not name.startswith(AVERAGE)])


def test_parts_are_told():
    with pytest.raises(InputError, match=r"out\.2\.weight is missing"):
        architecture({name: value for name, value in state().items() if name != f"{UNET}out.2.weight"}, HERE)


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


@pytest.fixture
def checkpoint(tmp_path):
    """As the program saves it, callbacks and all."""
    callback = SimpleNamespace(best=torch.ones(1))  # torch's own reader refuses to make one
    torch.save({"state_dict": state(), "epoch": 0, "global_step": 7, "callbacks": {"best": callback}}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.mark.parametrize("raw", [False, True])
def test_an_imported_run_gives_the_official_answer(checkpoint, tmp_path, raw, monkeypatch):
    assert main(["import", "sdseg", str(checkpoint), "--out", str(tmp_path / "run"), *["--raw"] * raw]) == 0
    checkpoint.unlink()
    run, case = somite.load(tmp_path / "run", device="cpu"), cases()
    assert run.method.steps == 1
    monkeypatch.setattr(rng, "normal", lambda shape, device: case["init_noise"])
    probability = run.method.sample({"image": case["image"]}, (1, 1, 64, 64))
    close(probability[:, 0], case["infer_prob" if raw else "infer_prob_ema"])
    assert torch.equal(probability[:, 0] > 0.5, case["infer_mask" if raw else "infer_mask_ema"])
    assert not torch.allclose(case["infer_prob"], case["infer_prob_ema"], atol=0.01)
    assert run.method.codec.scale == pytest.approx(0.2)
    assert [type(term).__name__ for term in run.method.terms.values()] == ["Noise", "Clean"]
    monkeypatch.setattr(rng, "normal", lambda shape, device: case["post_eps"])
    close(run.method.codec.encode(case["mask"][None, None]), case["z0"])
    photograph = (case["image"] + 1) / 2
    close(run.recipe.data.preprocess.normalise(photograph.clamp(0, 1), "a"), case["image"].clamp(-1, 1))
    assert "lin-tianyu" in (tmp_path / "run" / "origin.json").read_text()


def test_several_classes_are_asked_for_one_by_one(tmp_path, monkeypatch):
    """No outputs of the official program are at hand: its class 0 is checked as the U-Net's with the embedding added by hand."""
    classes, label = 3, f"{UNET}label_emb.weight"
    embedding = torch.randn(classes, 128)
    torch.save({"state_dict": state() | {label: embedding, "model_ema.diffusion_modellabel_embweight": embedding + 1}}, tmp_path / "m.ckpt")
    run, case = somite.load(import_run([tmp_path / "m.ckpt"], tmp_path / "run"), device="cpu"), cases()
    method = run.method
    assert run.recipe.data.labels == [0, 1, 2] and method.official and method.codec.maps == 3
    torch.testing.assert_close(method.network.unet.class_embedding.weight, embedding + 1)
    monkeypatch.setattr(rng, "normal", lambda shape, device: case["init_noise"])
    found = method.sample({"image": case["image"]}, (1, 1, 64, 64))
    assert found.shape == (1, 3, 64, 64)
    bare = somite.load(import_run([made(tmp_path)], tmp_path / "binary"), device="cpu").method
    parts = []
    for row in embedding + 1:
        with torch.no_grad(), monkeypatch.context() as patch:
            inner = bare.network.unet.time_embedding
            patch.setattr(inner, "forward", lambda *given, row=row, call=inner.forward: call(*given) + row)
            parts.append(bare.sample({"image": case["image"]}, (1, 1, 64, 64)))
    torch.testing.assert_close(found, torch.cat([-parts[0], *parts[1:]], 1).softmax(1), rtol=1e-4, atol=1e-4)


def made(folder):
    torch.save(state(), folder / "binary.ckpt")
    return folder / "binary.ckpt"


def test_heads_are_asked_for(checkpoint, tmp_path):
    run = somite.load(import_run([checkpoint], tmp_path / "run", None, heads=4), device="cpu")
    assert {module.heads for module in run.method.network.unet.modules() if hasattr(module, "to_q")} == {4}


LOOKS = {
    "kl-f8": (part(state(), "first_stage_model."), "an autoencoder alone, such as kl-f8"),
    "lsun": ({name: value for name, value in state().items() if name.startswith((UNET, "first_stage_model."))}, "such as lsun_churches256"),
    "stable": (
        {name.replace("cond_stage_model.encoder", "cond_stage_model.transformer"): value for name, value in state().items()},
        "it looks like Stable Diffusion",
    ),
    "other": ({"a.weight": torch.ones(1)}, "its first names are a.weight"),
    "cut": ({name: value for name, value in state().items() if name != "first_stage_model.decoder.norm_out.bias"}, "1 entries are missing"),
}


@pytest.mark.parametrize("kind", LOOKS)
@pytest.mark.parametrize("named", ["sdseg", None])
def test_what_is_no_sdseg_is_told_what_it_looks_like(tmp_path, kind, named):
    entries, said = LOOKS[kind]
    torch.save({"state_dict": entries}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=said) as error:
        import_run([tmp_path / "model.ckpt"], tmp_path / "run", named)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_raw_is_for_files_that_hold_an_average(tmp_path):
    torch.save({"input_blocks.0.0.weight": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"--raw: a checkpoint of EnsemDiff holds its weights once"):
        import_run([tmp_path / "model.pt"], tmp_path / "run", raw=True)


def test_another_program_is_told_apart(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"it looks like sdseg: somite import sdseg"):
        import_run([checkpoint], tmp_path / "run", "segdiff")
