"""Small runs that tests share."""

import subprocess
import sys
from pathlib import Path

from somite.recipe import parse, path_of
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


def somite(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "somite.cli", *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False, **options
    )
