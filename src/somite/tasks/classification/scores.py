"""How right one answer is."""

from collections.abc import Iterator

import numpy as np

from ..task import Row
from .answer import Classified

CLIP = 1e-6  # of probabilities, so that a sure mistake costs 13.8 nats and not infinity


def nll(p: np.ndarray, y: np.ndarray, exclusive: bool) -> float:
    """In nats: -log p of the true class, or the mean over labels of -log of what was said of each."""
    clipped = p.astype(np.float64).clip(CLIP, 1 - CLIP)
    return float(-np.log(clipped[y.argmax()])) if exclusive else float(-np.mean(np.where(y > 0, np.log(clipped), np.log1p(-clipped))))


def brier(p: np.ndarray, y: np.ndarray, exclusive: bool) -> float:
    """In [0, 1] (Brier 1950): half the sum over classes of (p - y)^2, which of two classes is either's (p - y)^2; the mean over labels."""
    squares = (p.astype(np.float64) - y) ** 2
    return float(squares.sum() / 2 if exclusive else squares.mean())


def row(answer: Classified) -> Row:
    """A row of rows.csv. p_truth: exp(-nll), the probability of the true class, of labels the geometric mean."""
    p, y = answer.probability, answer.truth
    named = [name for name, has in zip(answer.names, y, strict=True) if has]
    lost = nll(p, y, answer.exclusive)
    return {
        "case": answer.record.case.id,
        "group": answer.record.group,
        "truth": "; ".join(named),
        "answer": "; ".join(answer.answer),
        "correct": int(named == answer.answer),
        "p_truth": float(np.exp(-lost)),
        "nll": lost,
        "brier": brier(p, y, answer.exclusive),
    }


def each(answer: Classified) -> Iterator[Row]:
    """A row a class ("class"), or a label ("label") where they do not exclude each other."""
    kind = "class" if answer.exclusive else "label"
    for name, y, p, spread in zip(answer.names, answer.truth, answer.probability, answer.spread, strict=True):
        of_members = {"spread": float(spread)} if len(answer.members) > 1 else {}
        key = {"case": answer.record.case.id, "group": answer.record.group, kind: name}
        yield {**key, "truth": int(y), "probability": float(p), **of_members}
