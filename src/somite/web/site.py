"""The folder of a page: files without a build step, beside the run's program and onnxruntime-web."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.normalise import Centred, Normalise, Percentile, ZScore
from ..export.program import described
from ..export.programs import require, write_onnx
from ..files import new_folder, read_json, write_json
from ..pipeline import Run
from .runtime import copy

PAGE = Path(__file__).with_name("page")
TOLD = "model.json"


def make_site(run: Run, out: Path, runtime: Callable[[], Path]) -> Path:
    """The folder `out`, new, whole or not at all; one that holds this very run already is left as it is.

    runtime: gives the folder with onnxruntime-web's files, asked once the run is known to have a program. Raises InputError where it has none.
    """
    if same(run, out):
        return out
    with new_folder(out) as partial:
        require()
        told = write_onnx(run, partial / "model.onnx")
        for path in sorted(PAGE.iterdir()):
            shutil.copyfile(path, partial / path.name)
        copy(runtime(), partial / "runtime")
        write_json(partial / TOLD, {**told, **beside(run)})
    return out


def beside(run: Run) -> dict[str, Any]:
    """What the page must know of volumes: along which axis they are cut, and whether their brightness is normalised as a whole."""
    return {"axis": run.data.preprocess.axis, "whole_case": whole_case(run.data.preprocess.normalise)}


def whole_case(normalise: Normalise) -> bool:
    match normalise:
        case Centred():
            return whole_case(normalise.after)
        case Percentile():
            return not normalise.each_slice
        case _:
            return isinstance(normalise, ZScore)


def same(run: Run, out: Path) -> bool:
    """Whether a page of this run, sampled this way, is there."""
    if not (out / TOLD).is_file():
        return False
    there = read_json(out / TOLD)
    asked = described(run)
    return all(there.get(name) == asked[name] for name in ("somite", "recipe_sha256", "weights_sha256", "asked", "members"))
