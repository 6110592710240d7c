"""Checkpoints as the official programs save them become runs, and the wrong ones are told what they are."""

import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import somite
from published import filled, weight
from somite.diffusion.readout import Fused, Sampled
from somite.diffusion.samplers import Ancestral
from somite.errors import InputError
from somite.networks.ensemdiff import EnsemDiff
from somite.networks.medsegdiff import MedSegDiff, MedSegDiffV1
from somite.networks.segdiff import SegDiff
from somite.weights.importer import import_run, importers

REFERENCE = Path(__file__).parents[1] / "reference" / "unet"
SMALL = {
    "ensemdiff": lambda: EnsemDiff(32, (1, 2, 2), 1, (2,), 2),
    "segdiff": lambda: SegDiff(32, (1, 2, 2, 2), 1, (2, 4), 4, 1),
    "medsegdiff": lambda: MedSegDiff((1, 2), 1, (2,), 2),
    "medsegdiff-v1": lambda: MedSegDiffV1(32, (1, 1, 1, 1, 2), 1, (16,), 1, size=64, random_projection=True),
}
CASES = {"ensemdiff": "ensemdiff_small", "segdiff": "segdiff_small", "medsegdiff": "medsegdiff_new_small"}


def import_unet(kind, path, out, heads=None):
    return import_run([path], out, kind, heads)


def official(kind, path, prefix=""):
    """A file as the official program writes it: a bare state dict under the published names."""
    state = filled(SMALL[kind]()).state_dict()
    torch.save({prefix + name.removeprefix("unet."): value for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("kind", CASES)
@torch.no_grad()
def test_an_imported_run_gives_the_official_forward(kind, tmp_path):
    heads = {"ensemdiff": 2, "segdiff": 4, "medsegdiff": 2}[kind]
    run = somite.load(import_unet(kind, official(kind, tmp_path / "model.pt"), tmp_path / "run", heads), device="cpu")
    case = load_file(REFERENCE / f"{CASES[kind]}_cases.safetensors")
    image, x = (case["image"], case["fwd.x"]) if kind == "segdiff" else (case["fwd.x"][:, :-1], case["fwd.x"][:, -1:])
    out = run.method.network(x, case["fwd.t"], run.method.network.encode({"image": image}))
    value = out.value if out.var is None else torch.cat([out.value, out.var], 1)
    assert (value - case["fwd.out"]).abs().max() < 1e-4 * case["fwd.out"].abs().max()


def test_version_1_and_parallel_prefixes(tmp_path):
    given = official("medsegdiff-v1", tmp_path / "m.pt", "module.")
    run, again = (somite.load(import_unet("medsegdiff", given, tmp_path / name), device="cpu") for name in ("run", "again"))
    network = run.method.network
    assert type(network) is MedSegDiffV1
    assert not network.random_projection
    assert network.hwm.emb_proj.weight.std() > 0.01
    assert not run.method.readout.official
    assert torch.equal(network.hwm.emb_proj.weight, again.method.network.hwm.emb_proj.weight)


@pytest.mark.parametrize(("kind", "steps"), [("ensemdiff", 1000), ("segdiff", 100), ("medsegdiff", 1000), ("medsegdiff-v1", 1000)])
def test_an_imported_run_samples_as_its_program_did(kind, steps, tmp_path):
    """Mask range, ancestral steps, variance; V1 answers with the fusion."""
    heads = {"ensemdiff": 2, "segdiff": 4, "medsegdiff": 2, "medsegdiff-v1": 1}[kind]
    run = somite.load(import_unet(kind.split("-")[0], official(kind, tmp_path / "m.pt"), tmp_path / "run", heads), device="cpu")
    method = run.method
    lowest = method.codec.encode(torch.zeros(1, 1, 2, 2)).unique().tolist()
    assert lowest == ([-1] if kind == "segdiff" else [0])
    assert (type(method.sampler), method.sampler.variance) == (Ancestral, "large" if kind == "segdiff" else "learned")
    assert method.steps == len(method.schedule) == steps
    assert type(method.readout) is (Fused if kind == "medsegdiff-v1" else Sampled)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (
            "ensemdiff_full",
            "ensemdiff",
            {"mults": [1, 1, 2, 2, 4, 4], "res_blocks": 2, "attention": [16], "channels": 128, "image_channels": 4},
        ),
        ("segdiff_monuseg_full", "segdiff", {"mults": [1, 1, 1, 2, 2, 4, 4], "res_blocks": 3, "attention": [16, 32], "rrdb_blocks": 12}),
        ("segdiff_city128_full", "segdiff", {"mults": [1, 1, 2, 2, 4, 4], "attention": [8, 16], "rrdb_blocks": 15}),
        ("medsegdiff_new_full", "medsegdiff", {"mults": [1, 1, 2, 2, 4, 4], "image_channels": 3}),
        ("medsegdiff_v1_full", "medsegdiff-v1", {"size": 256, "image_channels": 3}),
    ],
)
def test_the_architecture_is_read_off_published_names(name, kind, expected):
    lines = gzip.decompress((REFERENCE / f"{name}_keys.txt.gz").read_bytes()).decode().splitlines()
    shapes = {line.split("\t")[0]: tuple(int(n) for n in line.split("\t")[1].strip("()").split(",") if n.strip()) for line in lines}
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    (found,) = [one for one in importers() if one.recognises(state)]
    assert (found.kind, "v1" in found.recipe) == (kind.split("-")[0], kind.endswith("v1"))
    assert expected.items() <= found.architecture(state).items()


@pytest.mark.parametrize(("asked", "given", "words"), [
    ("ensemdiff", "segdiff", "rrdb.conv_first.weight; it looks like segdiff"),
    ("segdiff", "ensemdiff", "no rrdb.* entries; it looks like ensemdiff"),
    ("medsegdiff", "ensemdiff", "no hwm.* entries; it looks like ensemdiff"),
    ("ensemdiff", "medsegdiff", "it looks like medsegdiff"),
])  # fmt: skip
def test_the_wrong_variant_is_told_what_it_is(asked, given, words, tmp_path):
    with pytest.raises(InputError, match="is no") as caught:
        import_unet(asked, official(given, tmp_path / "model.pt"), tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_broken_checkpoints(tmp_path):
    path = official("ensemdiff", tmp_path / "model.pt")
    state = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in state.items() if k != "out.0.bias"} | {"extra.weight": weight("extra", (3,))}, path)
    with pytest.raises(InputError, match="1 entries are missing, 1 are not known"):
        import_unet("ensemdiff", path, tmp_path / "run")
    for lost in ("time_embed.0.weight", "out.2.weight"):
        torch.save({k: v for k, v in state.items() if k != lost}, path)
        with pytest.raises(InputError, match=f"{lost} is missing; give the whole file"):
            import_unet("ensemdiff", path, tmp_path / "run")
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="no checkpoint of EnsemDiff"):
        import_unet("ensemdiff", path, tmp_path / "run")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="cannot be read"):
        import_unet("ensemdiff", tmp_path / "cut.pt", tmp_path / "run")
