"""The official SDSeg's small configuration: weights that follow from their names, and what the program computed with them."""

import gzip
import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from somite.diffusion.latent import Autoencoder
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import scaled_linear
from somite.diffusion.terms import Clean, Noise
from somite.networks.sdseg import SDSeg
from somite.weights.sdseg import translated

REFERENCE = Path(__file__).parent / "reference" / "sdseg"
NETWORK = {"channels": 32, "mults": (1, 2, 2), "attention": (1, 2), "encoder_channels": 32, "encoder_mults": (1, 2, 2, 2)}
CODEC = {"autoencoder_channels": 32, "autoencoder_mults": (1, 2, 2, 2)}


def layout(name):
    """Names and shapes of a checkpoint, in its order."""
    text = gzip.decompress((REFERENCE / f"{name}_layout.json.gz").read_bytes())
    found = json.loads(text)
    return {entry["name"]: tuple(entry["shape"]) for entry in (found["keys"] if isinstance(found, dict) else found)}


def tensor(name, shape, seed=0):
    numbers = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed)).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return torch.from_numpy(numbers / np.float32(np.sqrt(np.prod(shape[1:]))))
    return torch.from_numpy(np.float32(0 if name.endswith(".bias") else 1) + np.float32(0.02) * numbers)


@cache
def state():
    """The small checkpoint's state dict."""
    made = {"scale_factor": torch.tensor(0.2)}
    for name, shape in layout("tiny").items():
        if name.startswith(("model.", "first_stage_model.", "cond_stage_model.")):
            made[name] = tensor(name, shape)
        if name.startswith("model.diffusion_model."):
            made["model_ema." + name.removeprefix("model.").replace(".", "")] = tensor(name, shape, seed=1)
    return made


@cache
def cases(name="tiny_cases"):
    with np.load(REFERENCE / f"{name}.npz") as found:
        return {key: torch.from_numpy(np.asarray(found[key])) for key in found.files}


@cache
def method(averaged=False):
    """The whole system, evaluating."""
    made = Diffusion(
        SDSeg(**NETWORK),
        scaled_linear(1000, 0.0015, 0.0155),
        {"noise": Noise(power=1), "latent": Clean(power=1)},
        DDIM(steps=1),
        Autoencoder(scale=0.2, **CODEC),
    )
    made.load_state_dict(translated(state(), averaged))
    return made.eval()


def close(ours, theirs, rtol=1e-4):
    """Within rtol of the largest value: single elements near zero carry no relative meaning."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= rtol * theirs.abs().max()
