"""`somite calibrate RUN --control fnr=0.10`: a threshold that keeps a risk, chosen on the validation cases and kept beside the weights.

Patients count, not cases. What is guaranteed holds for cases that come as the validation cases did: see metrics/conformal.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .calibration import apart, changed, settings
from .errors import InputError
from .files import read_json, write_json
from .metrics.conformal import grouped, least_controlled, least_tested
from .metrics.risk import COST, MONOTONE, PLAIN, RISKS, at, choose, guarantee
from .pipeline import Run

DELTA = 0.1
NOTHING = 0.99  # a FNR of masks that mark next to nothing
AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass(frozen=True)
class Wanted:
    """most: of the risk. delta: how often calibration may fail, where the guarantee is by probability."""

    risk: str
    most: float
    delta: float = DELTA

    @property
    def least(self) -> int:
        """How many patients it takes."""
        return least_controlled(self.most) if self.risk in MONOTONE else least_tested(self.most, self.delta)


def wanted(text: str, delta: float = DELTA) -> Wanted:
    """From "fnr=0.10". Raises InputError for other words."""
    name, _, number = text.partition("=")
    try:
        most = float(number)
    except ValueError:
        most = float("nan")
    if name not in RISKS or not 0 < most < 1:
        raise InputError(f"--control {text}: name a risk and how much of it may be, as fnr=0.10, fpr=0.01 or fdr=0.2; or temperature")
    if not 0 < delta < 1:
        raise InputError(f"--delta {delta}: how often a calibration may fail is a share between 0 and 1; 0.1 is usual")
    return Wanted(name, most, delta)


def path_of(run: Path) -> Path:
    return run / "control.json"


def control(run: Run, want: Wanted, progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Any]:
    """Choose the threshold on the validation cases and write it down. Raises InputError where it can be guaranteed for none, with why."""
    cases = run.data.cases("val")
    enough(len({case.group for case in cases}), want, f"{run.data.path} has")
    contents = apart(run, cases)
    losses, costs, cost = [], [], COST[want.risk]
    for case in progress(cases):
        found = run.recipe.task.risks(run.answer(case))
        if found is None:
            raise InputError(
                f"{run.path} makes no mask of one class by a threshold, so none can be controlled; of several classes train one by itself "
                "(--data.foreground)"
            )
        losses.append(found[want.risk])
        costs.append(found[cost])
    groups = grouped(losses, [case.group for case in cases])
    lost = len({case.group for case in cases}) - len(groups)
    enough(len(groups), want, f"{run.data.path}, without {lost} whose {want.risk.upper()} has no meaning (nothing to miss or to mark), has")
    threshold = choose(want.risk, groups, want.most, want.delta)
    paid = grouped(costs, [case.group for case in cases]).mean(0)
    if threshold is None or (cost == "fnr" and paid[at(threshold)] > NOTHING):
        raise InputError(
            f"no mask that marks anything keeps the {want.risk.upper()} of {run.path} at {want.most:g} on {len(groups)} patients "
            f"(at 0.5 it is {groups[:, at(PLAIN)].mean():.3f}); allow more, bring more validation cases or train a better run"
        )
    told = {
        "risk": want.risk,
        "target": want.most,
        "delta": want.delta,
        "guarantee": guarantee(want.risk, want.most, want.delta),
        "threshold": threshold,
        "on_validation": float(groups[:, at(threshold)].mean()),
        "at_half": float(groups[:, at(PLAIN)].mean()),
        "cost": {"risk": cost, "on_validation": float(paid[at(threshold)]), "at_half": float(paid[at(PLAIN)])},
        "groups": len(groups),
        "groups_left_out": lost,
        **settings(run),
        "seed": run.sampling.seed,
        "cases": contents,
    }
    write_json(path_of(run.path), told)
    return told


def enough(groups: int, want: Wanted, who: str) -> None:
    if groups < want.least:
        raise InputError(
            f"{who} {groups} patients (groups) for validation, and {want.risk}={want.most:g} takes at least {want.least}: with fewer not even "
            f"a run without any error could be told from one that errs too much; allow more, or bring more validation cases"
        )


def applied(run: AnyRun) -> AnyRun:
    """The run with its masks at the threshold that was chosen for it; as it is where none was. Raises InputError where that does not hold
    for how the run is sampled now.
    """
    path = path_of(run.path)
    if not path.is_file():
        return run
    found = read(path)
    if run.folds:
        raise InputError(f"{path} holds for one run, and not for an ensemble of folds; add --plain to leave it out")
    other = changed(run, found)
    if other:
        raise InputError(f"{path} was chosen with another {other}; run `somite calibrate` again with the options of now, or add --plain")
    return run.at(control={name: found[name] for name in ("threshold", "risk", "target", "delta")})  # type: ignore[return-value]


def read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    good = isinstance(found, dict) and found.get("risk") in RISKS and isinstance(found.get("cases"), dict)
    if not good or not all(isinstance(found.get(name), float) and 0 <= found[name] <= 1 for name in ("threshold", "target", "delta")):
        raise InputError(f"{path} holds no threshold; run `somite calibrate {path.parent} --control RISK=SHARE` again")
    return found
