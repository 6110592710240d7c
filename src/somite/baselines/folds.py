"""nnU-Net's ensemble: the runs of a cross-validation, averaged."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.record import Case
from ..errors import InputError
from ..pipeline import Run, load
from ..predict.ensemble import Result
from ..predict.fusion import Mean, decide
from ..tasks.task import Scored


class FoldEnsemble:
    """Several runs as one ensemble whose members are the runs' probabilities, fused by their mean."""

    # nnU-Net averages the folds' logits; here: probabilities, as of every ensemble in somite, so that calibration compares.

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)

    def predict(self, image: np.ndarray | str | Path | Case, members: int = 1, seed: int = 0) -> Result:
        """`members` of each run: more than one makes sense for diffusion alone. In the input's own geometry."""
        results = [run.predict(image, members, seed) for run in self.runs]
        all_members = np.concatenate([result.members for result in results])
        probability = Mean()(all_members)
        return Result(results[0].record, decide(probability), probability, all_members.std(0), all_members)

    def evaluate(self, cases: Iterable[Case], seed: int = 0) -> Iterator[Scored]:
        """Score labelled cases, such as `runs[0].recipe.data.cases("test")`: a held-out set, for each fold has trained on the others' validation."""
        for case in cases:
            yield self.runs[0].recipe.task.score(self.predict(case, 1, seed))


def fold_ensemble(runs: Sequence[Path], trust: bool = False, device: str | None = None) -> FoldEnsemble:
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
    return FoldEnsemble(opened)


def facts(run: Run) -> dict[str, object]:
    """What members of one ensemble have in common."""
    data = run.recipe.data
    return {
        "data.labels": data.labels,
        "data.mask_threshold": data.mask_threshold,
        "data.preprocess.channels": data.preprocess.channels,
        "data.preprocess.dims": data.preprocess.dims,
        "method.codec.channels": run.method.codec.channels,
    }
