"""Small runs that tests share."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from somite.recipe import build, dump, parse, path_of
from somite.trainer.run import train

TINY = [
    "--method.network.channels=12",
    "--method.network.hidden=16",
    "--method.network.updates=3",
    "--data.crop=32",
    "--data.preprocess.size=null",
    "--training.batch=2",
    "--training.warmup=2",
]


def tiny(root: Path, out: Path, *overrides: str, recipe: str = "medsegdiffnca/demo") -> Path:
    """Train the demo's recipe, made tiny, on the data in `root`."""
    small = TINY if recipe == "medsegdiffnca/demo" else []
    train(parse(path_of(recipe), [f"--data.root={root}", *small, *overrides]), out)
    return out


def untrained(recipe: str, out: Path, *overrides: str) -> Path:
    """A run folder as training leaves it, of random weights and without data."""
    torch.manual_seed(0)
    config = parse(path_of(recipe), list(overrides))
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(dump(config))
    save_file(build(config).method.state_dict(), out / "weights.safetensors")
    return out


def classifier(out: Path, *overrides: str) -> Path:
    """A small one of two classes, untrained."""
    small = ["--method.network.channels=[4,8,8,8]", "--method.network.classes=2", "--method.codec.classes=2", "--task.classes=2"]
    return untrained("classifier/small", out, *small, *overrides)


def somite(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "somite.cli", *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False, **options
    )
