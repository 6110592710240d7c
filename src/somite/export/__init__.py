"""Runs in other programs' formats."""

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..files import new_folder
from ..pipeline import Run
from .diffusers_folders import write_diffusers
from .programs import write_onnx, write_onnx_folder, write_torch, write_torch_folder

FORMATS: dict[str, Callable[[Run, Path], object]] = {"diffusers": write_diffusers, "onnx": write_onnx_folder, "torch": write_torch_folder}
FILES: dict[str, tuple[str, Callable[[Run, Path], object]]] = {"onnx": (".onnx", write_onnx), "torch": (".pt2", write_torch)}


def export_run(run: Run, out: Path, kind: str) -> Path:
    """A folder at `out` that holds the run in this format, or where `out` ends as its files do one file; whole or not at all.

    Raises InputError where it cannot be said in it.
    """
    out = Path(out)
    suffix, write = FILES.get(kind, (None, None))
    if write is not None and out.suffix == suffix:
        if out.exists():
            raise InputError(f"{out} is there already; choose another --out")
        write(run, out)
        return out
    with new_folder(out) as partial:
        FORMATS[kind](run, partial)
    return out
