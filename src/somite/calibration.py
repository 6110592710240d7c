"""`somite calibrate RUN`: a temperature fitted on the validation cases, kept beside the weights."""

from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import InputError
from .files import read_json, sha256, write_json
from .pipeline import Run
from .predict.temperature import Tempered, fit


def path_of(run: Path) -> Path:
    return run / "temperature.json"


def calibrate(run: Run, seed: int = 0, progress: Callable[[Iterable], Iterable] = iter) -> float:
    """Fit one temperature to the fused probabilities of the validation cases, at their native resolution.

    It holds for the members and steps that it was fitted with; both are written down.
    """
    pairs = []
    for case in progress(run.recipe.data.cases("val")):
        result = run.segment(case, seed=seed)
        pairs.append((result.probability, result.record.truth))
    temperature = fit(pairs)
    write_json(path_of(run.path), {"temperature": temperature, **settings(run), "cases": len(pairs), "seed": seed})
    return temperature


def settings(run: Run) -> dict[str, object]:
    """What a temperature holds for."""
    weights = sha256(run.path / "weights.safetensors")
    return {"members": run.recipe.task.members, **run.sampling, "weights": weights}


def apply(run: Run) -> None:
    """Soften what the run predicts from now on by its fitted temperature."""
    path = path_of(run.path)
    if not path.is_file():
        raise InputError(f"{path} is missing; run `somite calibrate {run.path}` first")
    fitted = read_json(path)
    if not isinstance(fitted, dict) or not isinstance(fitted.get("temperature"), int | float) or not fitted["temperature"] > 0:
        raise InputError(f"{path} holds no temperature; run `somite calibrate {run.path}` again")
    other = [key for key, value in settings(run).items() if fitted.get(key) != value]
    if other:
        raise InputError(
            f"{path} was fitted with another {' and '.join(other)}; run `somite calibrate` again with the options that you use now"
        )
    run.recipe.task.fusion = Tempered(fitted["temperature"], run.recipe.task.fusion)
