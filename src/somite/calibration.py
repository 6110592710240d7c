"""`somite calibrate RUN`: a temperature fitted on the validation cases, kept beside the weights."""

from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import InputError
from .files import read_json, sha256, write_json
from .pipeline import Run
from .predict.temperature import fit


def path_of(run: Path) -> Path:
    return run / "temperature.json"


def calibrate(run: Run, progress: Callable[[Iterable], Iterable] = iter) -> float:
    """Fit one temperature to the fused probabilities of the validation cases, of masks at their native resolution.

    It holds for the sampling that it was fitted with, which is written down.
    """
    pairs = []
    for case in progress(run.recipe.data.cases("val")):
        found = run.recipe.task.probabilities(run.answer(case))
        if found is None:
            raise InputError(
                f"{run.path} gives no probabilities of a mask or of classes, which a temperature could scale; give a run that does"
            )
        pairs.append(found)
    temperature = fit(pairs)
    write_json(path_of(run.path), {"temperature": temperature, **settings(run), "cases": len(pairs), "seed": run.sampling.seed})
    return temperature


def settings(run: Run) -> dict[str, object]:
    """What a temperature holds for: any seed."""
    weights = sha256(run.path / "weights.safetensors")
    return {**{name: value for name, value in run.told.items() if name != "seed"}, "weights": weights}


def calibrated(run: Run) -> Run:
    """The run with its answers softened by its fitted temperature."""
    path = path_of(run.path)
    if not path.is_file():
        raise InputError(f"{path} is missing; run `somite calibrate {run.path}` first")
    fitted = read_json(path)
    if not isinstance(fitted, dict) or not isinstance(fitted.get("temperature"), int | float) or not fitted["temperature"] > 0:
        raise InputError(f"{path} holds no temperature; run `somite calibrate {run.path}` again")
    other = [key for key, value in settings(run).items() if key in fitted and fitted[key] != value]
    if other:
        raise InputError(
            f"{path} was fitted with another {' and '.join(other)}; run `somite calibrate` again with the options that you use now"
        )
    return run.at(temperature=fitted["temperature"])
