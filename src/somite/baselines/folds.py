"""nnU-Net's ensemble: the runs of a cross-validation, averaged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..pipeline import Run, load


def fold_ensemble(runs: Sequence[Path], trust: bool = False, device: str | None = None) -> Run:
    """Open run folders as one ensemble. Raises InputError where they do not predict the same classes from the same channels."""
    if not runs:
        raise InputError("an ensemble of folds needs at least one run folder")
    twice = [path for index, path in enumerate(runs) if path in list(runs)[:index]]
    if twice:
        raise InputError(f"{twice[0]} is named twice: name each fold's run once")
    opened = [load(path, trust, device) for path in runs]
    first = facts(opened[0])
    for run in opened[1:]:
        odd = [f"{name} {value} where {first[name]} was wanted" for name, value in facts(run).items() if value != first[name]]
        if odd:
            raise InputError(f"{run.path} does not fit {opened[0].path}: {odd[0]}; folds of one recipe belong together")
    return replace(opened[0], folds=tuple(opened[1:]))


def facts(run: Run) -> dict[str, object]:
    """What members of one ensemble have in common."""
    data = run.recipe.data
    return {
        "data.labels": data.labels,
        "data.mask_threshold": data.mask_threshold,
        "data.preprocess.channels": data.preprocess.channels,
        "data.preprocess.dims": data.preprocess.dims,
        "data.preprocess.axis": data.preprocess.axis,
        "method.codec.maps": run.method.codec.maps,
    }
