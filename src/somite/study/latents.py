"""Studies in latents: an autoencoder that is trained first, on the study's own training images, and recipes that stand on it."""

from pathlib import Path
from typing import Any

from .trees import Tree, bundled

CHANNELS = 4  # of a latent


def autoencoder(data: Tree, sizes: Tree, steps: int, batch: int, crop: int) -> Tree:
    """The recipe of an autoencoder of these images, trained on squares of `crop` px. sizes: arguments of its network."""
    tree = bundled("autoencoder/images")
    tree["data"] = {**data, "crop": crop}
    tree["method"]["init_args"]["network"]["init_args"] = {**sizes, "latent_channels": CHANNELS}
    tree["training"] |= {"steps": steps, "batch": batch, "rate": 1e-3, "ema": 0.99, "validate": max(1, steps // 2)}
    return tree


def in_latents(arguments: dict[str, Any], network: Tree, autoencoder: Path) -> None:
    """Let a method of images, whose network is `network` in the tree, work in the latents of a trained autoencoder."""
    network["init_args"]["target_channels"] = CHANNELS
    picture = {"class_path": "somite.diffusion.codec.Signed", "init_args": {"channels": 3}}
    told = {"weights": {"source": str(autoencoder)}, "posterior": "mean", "picture": picture}
    arguments["codec"] = {"class_path": "somite.diffusion.latent.Autoencoder", "init_args": told}
