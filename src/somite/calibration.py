"""`somite calibrate RUN`: a temperature fitted on the validation cases, kept beside the weights; and what all that is fitted so has in
common, thresholds (control.py) and foretold scores (quality.py) too: how the run was sampled, and on which cases.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .data.digest import content
from .data.record import Case
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
    """What a temperature, or anything else that is fitted, holds for: any seed."""
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
    other = changed(run, fitted)
    if other:
        raise InputError(f"{path} was fitted with another {other}; run `somite calibrate` again with the options that you use now")
    return run.at(temperature=fitted["temperature"])


def changed(run: Run, fitted: dict[str, object]) -> str:
    """What of the settings is not as it was when something was fitted, in words; nothing where all is."""
    return " and ".join(key for key, value in settings(run).items() if key in fitted and fitted[key] != value)


def apart(run: Run, cases: Sequence[Case]) -> dict[str, str]:
    """The contents of the calibration cases by id. Raises InputError where one is a test or training case too, under whatever name."""
    mine = {content(case): case.id for case in cases}
    sizes = {weight(case) for case in cases}
    for split in ("train", "test"):
        try:
            others = run.data.cases(split)
        except InputError:  # there is no such split
            continue
        both = next((other for other in others if weight(other) in sizes and content(other) in mine), None)
        if both:
            raise InputError(
                f"{both.id} of the {split} cases is the image {mine[content(both)]} of the validation cases: what is promised of new cases "
                "cannot be calibrated on known ones; take one of them out"
            )
    return {name: digest for digest, name in mine.items()}


def weight(case: Case) -> int:
    """Bytes of its files: what differs in them need not be compared."""
    return sum(path.stat().st_size for path in case.files)


def unseen(path: Path, cases: Sequence[Case]) -> None:
    """Raises InputError where one of these cases, which are to be scored, was calibrated on by what `path` holds, if that is there."""
    if not path.is_file():
        return
    used = read_json(path)["cases"]
    known = {digest: name for name, digest in used.items()}
    both = next((case for case in cases if content(case) in known), None)
    if both:
        raise InputError(
            f"{both.id} is among the cases that {path} was calibrated on, so that what it promises cannot be seen there; evaluate other "
            "cases, or add --plain"
        )
