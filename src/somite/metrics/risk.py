"""What a mask misses and what it marks for nothing, at every threshold of its probability: FNR, FPR and FDR.

With TP, FP, FN and TN the pixels of a mask {probability >= threshold} against the truth:

    FNR = FN / (TP + FN)    the share of the truth that is missed; it grows with the threshold
    FPR = FP / (FP + TN)    the share of the background that is marked; it falls
    FDR = FP / (TP + FP)    the share of the mask that is no foreground; it does either

Empty masks. A case whose truth is empty has nothing to miss: its FNR is NaN, and whoever averages leaves it out, since a 0 would let other
cases miss more. So is the FPR of a case that is all foreground. A mask that marks nothing discovers nothing falsely: its FDR is 0; one
that marks anything where the truth is empty has an FDR of 1. `overlap.EMPTY_RULE`, which keeps every case, is for scores.
"""

import numpy as np
from numpy.typing import NDArray

from .conformal import accepted, controlled
from .overlap import check_masks

RISKS = {"fnr": "false negative rate", "fpr": "false positive rate", "fdr": "false discovery rate"}
MONOTONE = frozenset({"fnr", "fpr"})  # in the threshold
COST = {"fnr": "fdr", "fpr": "fnr", "fdr": "fnr"}  # what grows where one of them is kept
PLAIN = 0.5
_LOGITS = np.linspace(-14, 14, 1121)  # every fortieth: as fine where networks are sure as where they are not
THRESHOLDS = np.unique(np.concatenate([[0.0], 1 / (1 + np.exp(-_LOGITS)), [PLAIN, 1.0]]).astype(np.float32)).astype(np.float64)


def risks(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """FNR, FPR and FDR of one case, each (thresholds,) in [0, 1] or NaN throughout, at THRESHOLDS, which float32 holds exactly.

    probability in [0, 1] and boolean truth of one shape, any dimension. Raises ValueError otherwise.
    """
    if truth.shape != probability.shape:
        raise ValueError(f"probability has shape {probability.shape} and truth {truth.shape}; want one shape")
    check_masks(truth, truth)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError(f"probability spans [{probability.min()}, {probability.max()}]; want [0, 1]: apply a sigmoid or clip")
    places = np.searchsorted(THRESHOLDS, probability.ravel(), side="right")  # how many thresholds each pixel reaches
    inside = truth.ravel()
    marked = {
        name: np.bincount(places[where], minlength=len(THRESHOLDS) + 1)[:0:-1].cumsum()[::-1].astype(np.float64)
        for name, where in (("true", inside), ("false", ~inside))
    }
    present, absent = int(inside.sum()), int((~inside).sum())
    whole, nothing = marked["true"] + marked["false"], np.full(len(THRESHOLDS), np.nan)
    return {
        "fnr": 1 - marked["true"] / present if present else nothing,
        "fpr": marked["false"] / absent if absent else nothing,
        "fdr": np.divide(marked["false"], whole, out=np.zeros_like(whole), where=whole > 0),
    }


def choose(risk: str, losses: NDArray[np.float64], target: float, delta: float) -> float | None:
    """The threshold by the losses of groups (groups, thresholds): of those that keep the risk at most at `target` the one that gives most
    away, so the highest for FNR and the lowest for FPR and FDR. None where there is none.

    FNR and FPR by conformal risk control, in expectation; FDR by learn then test, with probability 1 - delta.
    """
    down = losses[:, ::-1], THRESHOLDS[::-1]  # from the highest threshold: with fewer and fewer misses
    ordered, thresholds = (losses, THRESHOLDS) if risk == "fpr" else down
    place = controlled(ordered, target) if risk in MONOTONE else accepted(ordered, target, delta)
    return None if place is None else float(thresholds[place])


def guarantee(risk: str, target: float, delta: float) -> str:
    """What `choose` promises, in words."""
    name = risk.upper()
    if risk in MONOTONE:
        return f"the {name} of a new patient is at most {target:g} in expectation, over patients and calibration sets"
    return f"with probability {1 - delta:g} over calibration sets the expected {name} of a new patient is at most {target:g}"


def rates(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """FNR, FPR and FDR of one mask, by the same rules: NaN where the truth leaves nothing to miss, or to mark."""
    check_masks(mask, truth)
    missed, marked, present, size = (int(np.count_nonzero(m)) for m in (truth & ~mask, mask & ~truth, truth, mask))
    absent = truth.size - present
    return {
        "fnr": missed / present if present else float("nan"),
        "fpr": marked / absent if absent else float("nan"),
        "fdr": marked / size if size else 0.0,
    }


def at(threshold: float) -> int:
    """Where a threshold stands in THRESHOLDS. Raises ValueError for one that does not."""
    place = int(np.searchsorted(THRESHOLDS, threshold))
    if place == len(THRESHOLDS) or THRESHOLDS[place] != threshold:
        raise ValueError(f"{threshold} is none of the thresholds that risks are counted at")
    return place
