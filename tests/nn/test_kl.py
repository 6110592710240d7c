"""One autoencoder from everything that may hold it: folders of diffusers, files under either names, a run."""

import pytest
import torch
from safetensors.torch import save_file

from official_sdseg import cases, close, layout, state
from somite.errors import InputError
from somite.nn.kl import OLDER, kl_autoencoder, load_autoencoder, sizes
from somite.nn.latent_diffusion_names import FIRST_STAGE, kl_translated, part

OFFICIAL = part(state(), FIRST_STAGE)
OURS = kl_translated(OFFICIAL)


def older(entries):
    """Diffusers' names before 2023."""
    now = {new: old for old, new in OLDER.items()}
    return {next((name.replace(new, now[new]) for new in now if new in name), name): value for name, value in entries.items()}


FILES = {
    "kl-f8.ckpt": {"state_dict": OFFICIAL | {"loss.logvar": torch.zeros(1), "loss.discriminator.main.0.weight": torch.ones(1)}},
    "kl-f8.safetensors": OFFICIAL,
    "sdseg.ckpt": {"state_dict": state()},
    "diffusers.pt": OURS,
    "older.pth": older(OURS),
    "half.pt": {name: value.double() for name, value in OURS.items()},
}


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_files(tmp_path, name):
    save = (lambda entries, path: save_file(dict(entries), path)) if name.endswith("safetensors") else torch.save
    save(FILES[name], tmp_path / name)
    model, case = load_autoencoder(tmp_path / name).eval(), cases()
    close(model.encode((2 * case["mask"][None, None] - 1).repeat(1, 3, 1, 1)).latent_dist.parameters, case["enc_moments"])
    close(model.decode(case["z0"] / 0.2).sample, case["dec_of_z0"])
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())


def test_folders(tmp_path):
    made = kl_autoencoder(32, (1, 2), 1, latent_channels=3, image_channels=1)
    made.save_pretrained(tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("task: {}")
    entries = {f"network.autoencoder.{name}": value.contiguous() for name, value in made.state_dict().items()}
    save_file(entries | {"network.other": torch.zeros(1)}, tmp_path / "run" / "weights.safetensors")
    for source in (tmp_path / "pipeline", tmp_path / "pipeline" / "vae", tmp_path / "run"):
        found = load_autoencoder(source)
        assert found.config.latent_channels == 3 and found.config.block_out_channels in ((32, 64), [32, 64])
        assert all(torch.equal(value, made.state_dict()[name]) for name, value in found.state_dict().items())


def test_published_sizes_are_read_off():
    names = {name: torch.empty(shape, device="meta") for name, shape in layout("real_binary").items()}
    found = sizes(kl_translated(part(names, FIRST_STAGE)))
    assert found == {"channels": 128, "mults": (1, 2, 4, 4), "blocks": 2, "latent_channels": 4, "image_channels": 3}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            {name: value for name, value in OFFICIAL.items() if "decoder.mid.block_2" not in name},
            "not whole, or of another kind: 8 entries",
        ),
        (
            {name: value for name, value in OFFICIAL.items() if "decoder" not in name},
            "no KL autoencoder: decoder.conv_in.weight is not there",
        ),
        (OFFICIAL | {"encoder.down.2.attn.0.q.weight": torch.zeros(32, 32, 1, 1)}, "of another kind: 1 entries"),
        (OFFICIAL | {"decoder.conv_in.weight": torch.zeros(3)}, "1 entries are missing, unknown or of other shapes"),
        ({"time_embed.0.weight": torch.zeros(3)}, "its first names are time_embed.0.weight"),
    ],
    ids=["cut", "encoder alone", "with attention", "another shape", "something else"],
)
def test_files_that_are_not_whole(tmp_path, entries, said):
    torch.save(entries, tmp_path / "a.pt")
    with pytest.raises(InputError, match=said):
        load_autoencoder(tmp_path / "a.pt")


def test_runs_of_something_else(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: {}")
    save_file({"network.unet.a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"a run of something else than an autoencoder"):
        load_autoencoder(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors is not there"):
        load_autoencoder(tmp_path)
