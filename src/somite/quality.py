"""`somite calibrate RUN --quality`: how good an answer is likely to be, foretold without its truth.

A sign that needs no truth orders the cases; isotonic regression on half of the validation patients turns it into the score (of a
segmentation the Dice), and the other half says how far that is off: an interval that holds for a case of a new patient with the
probability `level` (metrics/conformal.py). Signs:

- members: the mean Dice of all pairs of members' masks (Roy et al. 2019);
- convergence: of cellular automata, the Dice of the mask with that after a fifth more updates of the finest level;
- expected: the Dice that the probabilities themselves foretell, as if pixels were independent.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from .calibration import apart, changed, settings
from .data.record import Case
from .errors import InputError
from .files import read_json, replacing, write_json
from .metrics.conformal import least_controlled, width
from .pipeline import Run
from .rng import derive
from .tasks.task import Answer

SIGNS = ("members", "convergence", "expected")
LEVEL = 0.9
FIFTH = 5
ENDING, TABLE = "_quality", "quality.csv"


@dataclass(frozen=True)
class Foretelling:
    """From a sign to the score. signs, scores: a rising line from point to point, constant beyond. half: of the interval's width."""

    sign: str
    signs: tuple[float, ...]
    scores: tuple[float, ...]
    half: float
    level: float

    def __call__(self, sign: float) -> dict[str, float]:
        predicted = float(np.interp(sign, self.signs, self.scores))
        return {"sign": sign, "predicted": predicted, "low": max(predicted - self.half, 0.0), "high": min(predicted + self.half, 1.0)}

    @property
    def told(self) -> dict[str, Any]:
        return {"sign": self.sign, "level": self.level, "half_width": self.half}


class Judge:
    """Foretells the scores of a run's answers."""

    def __init__(self, run: Run, foretelling: Foretelling) -> None:
        self.run, self.foretelling = run, foretelling
        self.signed = Signed(run, foretelling.sign)

    @property
    def keep(self) -> bool:
        """Whether answers must bring their members."""
        return self.signed.keep

    def __call__(self, answer: Answer) -> dict[str, float]:
        """The sign, the predicted score and its interval."""
        return self.foretelling(self.signed(answer))


class Signed:
    """One sign of a run's answers. Raises InputError for a sign that it has not."""

    def __init__(self, run: Run, sign: str) -> None:
        self.task, self.sign, self.longer = run.recipe.task, sign, None
        if sign == "members" and run.sampling.members * len(run.runs) < 2:
            raise InputError("--sign members: one member agrees with itself; give --members 2 or more, or another --sign")
        if sign == "convergence":
            self.longer = continued(run)

    @property
    def keep(self) -> bool:
        return self.sign == "members"

    def __call__(self, answer: Answer) -> float:
        if self.longer is not None:
            return self.task.likeness(answer, self.longer.answer(answer.record))
        found = self.task.sureness(answer)
        if self.sign not in found:
            raise InputError(f"answers of this run have no sign {self.sign!r} of how good they are; it is for runs that segment")
        return found[self.sign]


def usual(run: Run) -> str:
    """The sign that is taken where none is asked for: what a run has of `SIGNS`, the first."""
    if run.sampling.members * len(run.runs) > 1:
        return "members"
    return "expected" if updates(run) is None else "convergence"


def updates(run: Run) -> int | list[int] | None:
    """Of a cellular automaton, of each level where they differ, coarsest first."""
    return next((one.updates for one in run.method.modules() if isinstance(getattr(one, "updates", None), int | list)), None)  # type: ignore[attr-defined]


def continued(run: Run) -> Run:
    """The run with a fifth more updates, at least one, at the finest level, or at all where a network knows one number for all."""
    have = updates(run)
    if have is None:
        raise InputError("--sign convergence is for cellular automata, and this run's network has no updates; take another --sign")
    return run.at(updates=more(have) if isinstance(have, int) else [*have[:-1], more(have[-1])])


def more(count: int) -> int:
    return count + max(1, count // FIFTH)


def path_of(run: Path) -> Path:
    return run / "quality.json"


def calibrate(run: Run, sign: str | None = None, level: float = LEVEL, progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Any]:
    """Fit on the validation cases and write it down. sign: of `SIGNS`; None: the `usual`."""
    if not 0 < level < 1:
        raise InputError(f"--level {level}: how often the interval is to hold is a share between 0 and 1; 0.9 is usual")
    cases, signed = run.data.cases("val"), Signed(run, sign or usual(run))
    fitted = halved(cases, least_controlled(1 - level), level)
    contents = apart(run, cases)
    found = []
    for case in progress(cases):
        answer = run.answer(case, keep=signed.keep)
        score = run.recipe.task.goodness(answer)
        if score is None:
            raise InputError(f"{run.path} answers with no mask, and a quality is foretold of masks alone; give a run that segments")
        found.append((signed(answer), score))
    signs, scores = np.array(found).T
    inside, groups = np.array([case.group in fitted for case in cases]), np.array([case.group for case in cases])
    points, values = risen(signs[inside], scores[inside])
    errors = np.abs(scores - np.interp(signs, points, values))[~inside]
    half = width(errors, groups[~inside], level)
    assert half is not None  # `halved` has counted
    told = {
        "sign": signed.sign,
        "level": level,
        "half_width": half,
        "mean_error": float(errors.mean()),
        "signs": points.tolist(),
        "scores": values.tolist(),
        "groups": {"fitted": len(fitted), "interval": len(set(groups[~inside]))},
        **settings(run),
        "seed": run.sampling.seed,
        "cases": contents,
    }
    write_json(path_of(run.path), told)
    return told


def halved(cases: Sequence[Case], least: int, level: float) -> set[str]:
    """The half of the patients that is fitted to, by hash. Raises InputError where either half is too small."""
    groups = sorted({case.group for case in cases}, key=lambda group: (derive("quality", group), group))
    if len(groups) < 2 * least:
        raise InputError(
            f"a quality with an interval of {level:g} takes {2 * least} patients (groups) for validation, half to fit it and half to see how far "
            f"it is off, and there are {len(groups)}; give a lower --level, or bring more validation cases"
        )
    return set(groups[: len(groups) // 2])


def risen(signs: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rising steps of least squares (Barlow et al. 1972) through points: each sign once, and its score."""
    points, index, counts = np.unique(signs, return_inverse=True, return_counts=True)
    means = np.bincount(index, scores) / counts
    return points, np.asarray(isotonic_regression(means, weights=counts).x)


def judge(run: Run) -> Judge | None:
    """By what was fitted for the run; None where nothing was. Raises InputError where that does not hold for how it is sampled now."""
    path = path_of(run.path)
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        foretelling = Foretelling(found["sign"], tuple(found["signs"]), tuple(found["scores"]), float(found["half_width"]), found["level"])
        good = found["sign"] in SIGNS and len(found["signs"]) == len(found["scores"]) > 0 and isinstance(found["cases"], dict)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no quality; run `somite calibrate {run.path} --quality` again") from error
    if not good:
        raise InputError(f"{path} holds no quality; run `somite calibrate {run.path} --quality` again")
    other = "number of runs" if run.folds else changed(run, found)
    if other:
        raise InputError(
            f"{path} was fitted with another {other}; run `somite calibrate --quality` again with the options of now, or add --plain"
        )
    return Judge(run, foretelling)


def write(told: dict[str, float], case: Case, out: Path) -> Path:
    """CASE_quality.json."""
    path = out / f"{case.id}{ENDING}.json"
    write_json(path, {"id": case.id, **{name: round(value, 6) for name, value in told.items()}})
    return path


def gather(out: Path) -> list[dict[str, Any]]:
    """quality.csv of all cases in a folder, those to look at first first; its rows."""
    rows = sorted((read_json(path) for path in out.glob(f"*{ENDING}.json")), key=lambda row: (row["predicted"], row["sign"], row["id"]))
    if rows:
        with replacing(out / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return rows
