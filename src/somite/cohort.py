"""Many cases through one run, here or by the workers of an engine: each once, whatever happens between, with a table of what became of it.

An answer is a function of (seed, case), so it does not matter who gives it. What is written is done: the same call again makes what is
missing, and tries again what failed.
"""

import csv
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .data.record import Case
from .engines import Engine
from .errors import InputError
from .files import replacing, sha256, write_json
from .pipeline import Run, load
from .quality import Judge, judge, write
from .sampling import Sampling

TABLE, DESCRIBED = "cases.csv", "prediction.json"
DONE, FAILED = "done", "failed"


def described(run: Run, kinds: Collection[str], judging: Judge | None = None) -> dict[str, Any]:
    """What prediction.json says of a folder of answers: all that they depend on, beside the cases."""
    weights = [sha256(one.path / "weights.safetensors") for one in run.runs]
    told = {} if judging is None else {"quality": judging.foretelling.told}
    return {"run": str(run.path.resolve()), "weights": weights, **run.told, "save": sorted(kinds), **told}


def written(out: Path, stems: Sequence[str]) -> bool:
    """Whether all of these files are there, as image, volume, DICOM or JSON."""
    return bool(stems) and all(
        any((out / f"{stem}{suffix}").is_file() for suffix in (".png", ".nii.gz", ".json", ".dcm")) for stem in stems
    )


@dataclass(frozen=True)
class Opening:
    """All that a worker must know to open a run as it was opened here, with its folds."""

    runs: tuple[tuple[Path, Sampling], ...]
    device: str


@dataclass(frozen=True)
class Asked:
    """One case that a worker answers; `kinds` of files go to `out`, which `settings` describe."""

    opening: Opening
    case: Case
    kinds: tuple[str, ...]
    out: Path
    settings: dict[str, Any]
    judged: bool = False


@dataclass(frozen=True)
class Outcome:
    """A row of the table. state: "done", or "failed" with the reason. seconds: that it took, where that is known."""

    case: str
    state: str
    seconds: str = ""
    reason: str = ""


def answered(
    run: Run,
    cases: Sequence[Case],
    out: Path,
    kinds: Collection[str],
    settings: dict[str, Any],
    engine: Engine | None = None,
    there: Collection[str] = (),
    progress: Callable[[Sequence[Case]], Iterable[Case]] = iter,
    judging: Judge | None = None,
) -> list[Outcome]:
    """Answer the cases and write them, prediction.json with the settings, and cases.csv into `out`; `there` are those that are not to be
    made again, by id. Where a single case fails, nothing is written.

    engine: whose workers answer; None answers here. judging: writes of each how good it is likely to be. What is wrong with one case stops no other: its outcome says it. The table is
    written whatever ends this, and keeps the cases of calls before.
    """
    todo = [case for case in cases if case.id not in there]
    known = read_table(out / TABLE)
    found = {case.id: known.get(case.id, Outcome(case.id, DONE)) for case in cases if case.id in there}
    try:
        made = (
            here(run, progress(todo), out, kinds, settings, judging)
            if engine is None
            else spread(run, todo, out, kinds, settings, engine, progress, judging is not None)
        )
        for outcome in made:
            found[outcome.case] = outcome
    finally:
        if (todo or not (out / TABLE).is_file()) and (len(cases) > 1 or any(one.state == DONE for one in found.values())):
            write_table(out / TABLE, known | found)
    return [found[case.id] for case in cases]


def here(
    run: Run, cases: Iterable[Case], out: Path, kinds: Collection[str], settings: dict[str, Any], judging: Judge | None
) -> Iterator[Outcome]:
    for case in cases:
        yield answer(run, case, out, kinds, settings, judging)


def spread(
    run: Run,
    cases: Sequence[Case],
    out: Path,
    kinds: Collection[str],
    settings: dict[str, Any],
    engine: Engine,
    progress: Callable[[Sequence[Case]], Iterable[Case]],
    judged: bool,
) -> Iterator[Outcome]:
    """By workers, which end in any order."""
    device = str(next(run.method.parameters()).device)
    opening = Opening(tuple((one.path.resolve(), one.sampling) for one in run.runs), device)
    asked = [Asked(opening, absolute(case), tuple(kinds), out.resolve(), settings, judged) for case in cases]
    if asked:
        for outcome, _ in zip(engine.run(work, asked), progress(cases), strict=True):
            yield outcome


def work(asked: Asked) -> Outcome:
    """`answer` in a worker, which keeps the run open for its next case."""
    torch.set_num_threads(1)  # workers are as many as there are cores for them
    judging = foretold(asked.opening) if asked.judged else None
    return answer(opened(asked.opening), asked.case, asked.out, asked.kinds, asked.settings, judging)


@lru_cache(maxsize=1)
def opened(opening: Opening) -> Run:
    """Who asks has opened the runs before, and so trusts them."""
    first, *folds = [
        load(path, trust=True, device=opening.device).under(sampling.named, sampling.members, sampling.seed)
        for path, sampling in opening.runs
    ]
    return replace(first, folds=tuple(folds))


@lru_cache(maxsize=1)
def foretold(opening: Opening) -> Judge | None:
    return judge(opened(opening))


def answer(run: Run, case: Case, out: Path, kinds: Collection[str], settings: dict[str, Any], judging: Judge | None = None) -> Outcome:
    began = time.monotonic()
    try:
        made = run.answer(case, keep="members" in kinds or (judging is not None and judging.keep))
        write_json(out / DESCRIBED, settings)  # before any file that it describes
        if judging is not None:
            write(judging(made), case, out)
        run.recipe.task.write(made, out, kinds)
    except InputError as error:
        return Outcome(case.id, FAILED, f"{time.monotonic() - began:.3g}", str(error))
    return Outcome(case.id, DONE, f"{time.monotonic() - began:.3g}")


def absolute(case: Case) -> Case:
    """Workers may be at home in another folder."""
    return replace(case, images=tuple(path.resolve() for path in case.images))


def read_table(path: Path) -> dict[str, Outcome]:
    """What became of the cases of calls before, by case."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case"]: Outcome(**row) for row in csv.DictReader(file)}


def write_table(path: Path, outcomes: Mapping[str, Outcome]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Outcome)])
        writer.writerows(astuple(outcomes[case]) for case in sorted(outcomes))
