"""How near generated images come to real ones, how much of them they cover, and whether they were learned by heart.

All is measured between feature vectors (n, d), which some extractor makes of images: a number means nothing without its extractor.

    KID                   Bińkowski et al. 2018 (arXiv 1801.01401): unbiased squared MMD, kernel (x.y / d + 1)^3; 0 for one distribution
    precision, recall     Kynkäänniemi et al. 2019 (arXiv 1904.06991): in the other set's manifold of balls to the k-th neighbour
    density, coverage     Naeem et al. 2020 (arXiv 2002.09797)
    nearest               for each generated vector the nearest of the training vectors
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from ..rng import derive
from .intervals import Interval

Features = Float[np.ndarray, "n d"]


def kid(real: Features, made: Features) -> float:
    """The unbiased estimate: it may be negative where both are alike."""
    check(real, made, 2)
    kernel = [(a @ b.T / real.shape[1] + 1) ** 3 for a, b in ((real, real), (made, made), (real, made))]
    n, m = len(real), len(made)
    within = (kernel[0].sum() - np.trace(kernel[0])) / (n * (n - 1)) + (kernel[1].sum() - np.trace(kernel[1])) / (m * (m - 1))
    return float(within - 2 * kernel[2].mean())


def kid_interval(real: Features, made: Features, level: float = 0.95, draws: int = 1000, seed: int = 0) -> Interval:
    """KID of all with a bootstrap interval over both sets. Pairs of a vector with its own copy are left out, or the estimate would rise."""
    check(real, made, 2)
    random = np.random.default_rng(derive("kid", seed))
    kernel = [(a @ b.T / real.shape[1] + 1) ** 3 for a, b in ((real, real), (made, made), (real, made))]
    found = np.empty(draws)
    for draw in range(draws):
        r, m = (np.bincount(random.integers(size, size=size), minlength=size).astype(float) for size in (len(real), len(made)))
        found[draw] = apart(r, kernel[0]) + apart(m, kernel[1]) - 2 * (r @ kernel[2] @ m) / (r.sum() * m.sum())
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(kid(real, made), float(low), float(high), len(made), len(made))


def kid_weighted(real: Features, made: Features) -> Callable[[np.ndarray], np.ndarray]:
    """KID as a function of weights (draws, n) of the n cases: `real` is of one vector a case, `made` of as many as each had, case by case.

    For bootstraps over cases; a row of ones gives `kid`.
    """
    check(real, made, 2)
    each, left = divmod(len(made), len(real))
    if left:
        raise ValueError(f"every case has as many generated vectors as another, got {len(made)} of {len(real)} cases")
    kernel = [(a @ b.T / real.shape[1] + 1) ** 3 for a, b in ((real, real), (made, made), (real, made))]

    def weighted(w: np.ndarray) -> np.ndarray:
        m = np.repeat(w, each, axis=1)
        between = np.einsum("dr,rm,dm->d", w, kernel[2], m, optimize=True) / (w.sum(1) * m.sum(1))
        return np.array([apart(r, kernel[0]) + apart(g, kernel[1]) for r, g in zip(w, m, strict=True)]) - 2 * between

    return weighted


def apart(weights: np.ndarray, kernel: np.ndarray) -> float:
    """The mean kernel over pairs of two different vectors, each counted by its weight."""
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return float((weights @ kernel @ weights - (weights**2) @ np.diag(kernel)) / pairs)


def manifold(real: Features, made: Features, k: int = 5) -> dict[str, float]:
    """precision, recall, density, coverage by balls to the k-th neighbour; all in [0, 1] but the density, which may be above 1."""
    check(real, made, k + 1)
    radius_real, radius_made = (np.partition(cdist(one, one), k, axis=1)[:, k] for one in (real, made))
    between = cdist(real, made)
    inside = between <= radius_real[:, None]  # a generated vector in a real one's ball
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between <= radius_made[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / k),
        "coverage": float(inside.any(1).mean()),
    }


def nearest(made: Features, training: Features) -> tuple[np.ndarray, np.ndarray]:
    """(index, distance), each (n,): of the training vector nearest to each generated one."""
    distance = cdist(made, training)
    index = distance.argmin(1)
    return index, distance[np.arange(len(made)), index]


def memorised(made: Features, training: Features, held_out: Features) -> float:
    """The share of generated vectors that lie nearer to a training vector than to every one held out, less what chance would give.

    Training and held-out sets are brought to one size (the first of the larger); 0 is no sign of memorisation, 0.5 is all of it.
    """
    size = min(len(training), len(held_out))
    ours, theirs = nearest(made, training[:size])[1], nearest(made, held_out[:size])[1]
    return float((ours < theirs).mean() + 0.5 * (ours == theirs).mean() - 0.5)


def check(real: np.ndarray, made: np.ndarray, least: int) -> None:
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1]:
        raise ValueError(f"features are (n, d) of one extractor, got {real.shape} and {made.shape}")
    if min(len(real), len(made)) < least:
        raise ValueError(f"at least {least} vectors of either kind are needed, got {len(real)} real and {len(made)} generated")
