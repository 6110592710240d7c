"""Runs that become one program: small networks of random weights, whose probabilities lie on both sides of one half."""

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import somite
from runs import untrained
from somite import rng

NCA = ["--method.network.channels=12", "--method.network.hidden=16", "--method.network.updates=1", "--data.preprocess.size=48"]
COMPACT = [
    *("--method.network.channels=[4,6]", "--method.network.image_channels=1", "--method.network.mask_channels=3", "--data.labels=[0,1,2]"),
    *("--data.preprocess.channels=1", "--data.preprocess.size=null"),
    *("--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3"),
]


def shaken(recipe, out, *overrides, by=0.3):
    """A run folder whose every weight was moved at random, so that no layer is silent."""
    untrained(recipe, out, *overrides)
    generator = torch.Generator().manual_seed(1)
    weights = load_file(out / "weights.safetensors")
    moved = {name: w + by * torch.randn(w.shape, generator=generator) if w.is_floating_point() else w for name, w in weights.items()}
    save_file(moved, out / "weights.safetensors")
    return out


def answered(path, image, noise=None, monkeypatch=None, **options):
    """What `somite predict` makes of an image, given this noise (m, k, h, w)."""
    run = somite.load(path, device="cpu")
    run = run.at(firing="expected") if hasattr(run.method.network, "levels") else run
    run = run.at(**options)
    if noise is None:
        return run.predict(image, members=1)
    left = iter(torch.from_numpy(noise))
    with monkeypatch.context() as patch:
        patch.setattr(rng, "normal", lambda shape, device: torch.stack([next(left) for _ in range(shape[0])]).reshape(shape))
        return run.predict(image, members=len(noise))


def same(found, result):
    """mask (h, w), probability and spread (k, h, w) beside what the run answers; both sides of the decision must be there."""
    assert len(np.unique(result.mask)) > 1
    assert np.abs(found["probability"] - result.probability).max() < 1e-4
    assert np.abs(found["spread"] - result.spread).max() < 1e-4
    assert (found["mask"] != result.mask).sum() == 0
