"""What the teacher says of each training image: files of probabilities, made once."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..cohort import DESCRIBED, FAILED, answered, described, written
from ..data.record import Case
from ..errors import InputError
from ..files import read_json
from ..pipeline import Run
from .checks import bare

KINDS = ["probability"]


def answer(teacher: Run, cases: Iterable[Case], out: Path, progress: Callable[[Iterable], Iterable] = iter) -> int:
    """Write what is not in the folder `out` yet; returns how many answers were made. A folder holds one teacher's answers under one
    sampling, which prediction.json says.
    """
    asked = [bare(case) for case in cases]
    about = described(teacher, KINDS)
    same(out / DESCRIBED, about)
    members = teacher.sampling.members * len(teacher.runs)
    stems = {case.id: teacher.recipe.task.files(case.id, KINDS, teacher.data, teacher.method.codec, members) for case in asked}
    there = {case.id for case in asked if written(out, stems[case.id])}
    outcomes = answered(teacher, asked, out, KINDS, about, there=there, progress=progress)
    bad = [one for one in outcomes if one.state == FAILED]
    if bad:
        raise InputError(f"{teacher.path} could not answer {len(bad)} of {len(asked)} training images: {bad[0].reason}")
    return len(asked) - len(there)


def same(path: Path, about: dict[str, Any]) -> None:
    """Where it lies does not matter: its weights say which teacher it is."""
    before = read_json(path) if path.exists() else about
    changed = [key for key in about if key not in ("run", "folds") and before.get(key) != about[key]]
    if changed:
        raise InputError(
            f"{path.parent} holds what a teacher said with another {changed[0]} ({before.get(changed[0])}): choose another --out, or delete "
            "the pupil's folder to begin afresh"
        )
