"""Runs in other programs' formats."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..pipeline import Run
from .diffusers_folders import write_diffusers

FORMATS: dict[str, Callable[[Run, Path], None]] = {"diffusers": write_diffusers}


def export_run(run: Run, out: Path, kind: str) -> Path:
    """A folder at `out` that holds the run in this format, whole or not at all. Raises InputError where it cannot be said in it."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds something already; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        FORMATS[kind](run, partial)
        partial.chmod(0o755)
        partial.replace(out)  # over an empty folder too
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out
