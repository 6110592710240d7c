"""What a classifier's answers are worth over a whole set.

p (n, k) are probabilities, y (n, k) truths of 0 and 1. Classes exclude each other (one a case, the most probable is the answer), or are
labels of which a case has any number (each at p >= 0.5). Every measure maps weights w (draws, n) of the cases to (draws,), so that a
bootstrap is one call with as many rows; a row of ones is the measure itself.

Each class is judged against the rest, and "macro" is the plain mean over classes. A class without a case, or without a case of the rest,
has no AUC, sensitivity or specificity and is left out of the mean, in a bootstrap draw as in the set.
"""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Float64, Int

Cases = Float[np.ndarray, "n k"]
Weights = Float64[np.ndarray, "draws n"]
Draws = Float64[np.ndarray, " draws"]
Measure = Callable[[Weights], Draws]


def measures(p: Cases, y: Cases, exclusive: bool, ordered: bool = False) -> dict[str, Measure]:
    """By name. ordered: classes that exclude each other are grades, for which a quadratic kappa means something."""
    d = decided(p, exclusive)
    answer, truth = d.argmax(1), y.argmax(1)
    found: dict[str, Measure] = {
        "auc": lambda w: macro([auc(p[:, c], y[:, c], w) for c in range(p.shape[1])]),
        "map": lambda w: macro([average_precision(p[:, c], y[:, c], w) for c in range(p.shape[1])]),
        "sensitivity": lambda w: macro(sensitivity(d, y, w)),
        "specificity": lambda w: macro(specificity(d, y, w)),
        "f1": lambda w: macro(f1(d, y, w)),
    }
    if exclusive:
        found["balanced_accuracy"] = found["sensitivity"]
        found["kappa"] = partial(kappa, answer, truth, p.shape[1])
        if ordered:
            found["kappa_quadratic"] = partial(kappa, answer, truth, p.shape[1], quadratic=True)
    else:
        found["accuracy"] = lambda w: macro([rate(d[:, c] == y[:, c], w) for c in range(p.shape[1])])
        found["balanced_accuracy"] = lambda w: macro((sensitivity(d, y, w) + specificity(d, y, w)) / 2)
        found["kappa"] = lambda w: macro([kappa(d[:, c], y[:, c].astype(int), 2, w) for c in range(p.shape[1])])
    return found


def decided(p: Cases, exclusive: bool) -> Int[np.ndarray, "n k"]:
    """The answers as 0 and 1: the most probable class, or every label at p >= 0.5."""
    return (np.arange(p.shape[1]) == p.argmax(1)[:, None]).astype(int) if exclusive else (p >= 0.5).astype(int)


def macro(each: np.ndarray | list) -> Draws:
    """(k, draws) -> (draws,), without the classes that have no value in a draw; NaN where none has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a mean of nothing
        return np.nanmean(np.stack(list(each)), axis=0)


def rate(hits: np.ndarray, w: Weights) -> Draws:
    return w @ hits / w.sum(1)


def auc(p: np.ndarray, y: np.ndarray, w: Weights) -> Draws:
    """The area under the ROC curve: how often a positive is above a negative, ties counting half (Mann & Whitney 1947)."""
    positives, negatives = tied(p, y, w)
    below = np.cumsum(negatives, 1) - negatives
    return share((positives * (below + negatives / 2)).sum(1), positives.sum(1) * negatives.sum(1))


def average_precision(p: np.ndarray, y: np.ndarray, w: Weights) -> Draws:
    """sum over thresholds of (recall's gain) x precision, nothing interpolated."""
    positives, negatives = (part[:, ::-1] for part in tied(p, y, w))
    found, all_ = np.cumsum(positives, 1), np.cumsum(positives + negatives, 1)
    precision = np.divide(found, all_, out=np.zeros_like(found), where=all_ > 0)
    return share((positives * precision).sum(1), positives.sum(1))


def tied(p: np.ndarray, y: np.ndarray, w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at each distinct p, rising: (draws, distinct) each."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-np.inf))
    weighted, truth = w[:, order], y[order]
    return np.add.reduceat(weighted * truth, starts, axis=1), np.add.reduceat(weighted * (1 - truth), starts, axis=1)


def sensitivity(d: np.ndarray, y: np.ndarray, w: Weights) -> Float64[np.ndarray, "k draws"]:
    return share((w @ (d * y)).T, (w @ y).T)


def specificity(d: np.ndarray, y: np.ndarray, w: Weights) -> Float64[np.ndarray, "k draws"]:
    return sensitivity(1 - d, 1 - y, w)


def f1(d: np.ndarray, y: np.ndarray, w: Weights) -> Float64[np.ndarray, "k draws"]:
    """2 TP / (2 TP + FP + FN): none for a class that is neither true nor answered."""
    return share(2 * (w @ (d * y)).T, (w @ (d + y)).T)


def kappa(answer: np.ndarray, truth: np.ndarray, classes: int, w: Weights, quadratic: bool = False) -> Draws:
    """Cohen's kappa (1960): 1 - observed / expected disagreement. quadratic: disagreement grows with the square of the distance (1968)."""
    grid = np.arange(classes)
    cost = (grid[:, None] - grid) ** 2 if quadratic else grid[:, None] != grid
    answers, truths = ((one[:, None] == grid).astype(float) for one in (answer, truth))
    total = w.sum(1)
    expected = np.einsum("di,ij,dj->d", w @ answers, cost.astype(float), w @ truths) / total
    return 1 - share(w @ cost[answer, truth].astype(float), expected)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to have a share of."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def roc(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1 - specificity, sensitivity) at every threshold, from (0, 0) to (1, 1)."""
    positives, negatives = (part[0, ::-1] for part in tied(p, y, np.ones((1, len(p)))))
    return tuple(np.concatenate([[0], np.cumsum(part) / max(part.sum(), 1)]) for part in (negatives, positives))  # type: ignore[return-value]


def precision_recall(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) at every threshold, the highest first."""
    positives, negatives = (part[0, ::-1] for part in tied(p, y, np.ones((1, len(p)))))
    found = np.cumsum(positives)
    return found / max(found[-1], 1), found / (found + np.cumsum(negatives))
