"""How near generated images come to real ones, how much of them they cover, and whether they were learned by heart.

All is measured between feature vectors (n, d), which some extractor makes of images: a number means nothing without its extractor.

    KID                   Bińkowski et al. 2018 (arXiv 1801.01401): unbiased squared MMD, kernel (x.y / d + 1)^3; 0 for one distribution
    precision, recall     Kynkäänniemi et al. 2019 (arXiv 1904.06991): in the other set's manifold of balls to the k-th neighbour
    density, coverage     Naeem et al. 2020 (arXiv 2002.09797)
    nearest               for each vector the nearest of the training vectors, plain and against those around it
    memorised             the share of generated vectors that are nearer to the training vectors than held-out ones usually are
    diversity             how far generated vectors lie apart, against real ones
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from ..rng import derive
from .intervals import Interval

Features = Float[np.ndarray, "n d"]
SHARE = 0.05  # of the held-out images, which are nearer to training images than the threshold of memorisation
AMONG = 50  # training images around one, against which its nearest is held (Carlini et al. 2023, section 4.2)
ROWS = 256  # vectors whose distances to all training vectors are held at once


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


def nearest(found: Features, training: Features, among: int = AMONG) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index, distance, relative), each (n,): of the training vector nearest to each, and its distance over the mean distance to the
    nearest `among` (itself included; all where there are fewer).

    The relative distance is Carlini et al.'s (2023, arXiv 2301.13188): 0 for a copy, near 1 for what lies between many. A blurred image
    is near to every training image, and its relative distance is not small.
    """
    parts = [_nearest(found[at : at + ROWS], training, among) for at in range(0, len(found), ROWS)]
    index, distance, relative = (np.concatenate(part) for part in zip(*parts, strict=True))
    return index, distance, relative


def _nearest(found: Features, training: Features, among: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    distance = cdist(found, training)
    index = distance.argmin(1)
    least = distance[np.arange(len(found)), index]
    count = min(among, len(training))
    around = np.partition(distance, count - 1, axis=1)[:, :count].mean(1)
    return index, least, np.divide(least, around, out=np.zeros_like(least), where=around > 0)


def rank(count: float, share: float = SHARE) -> int:
    """Which of so many held-out distances, in ascending order, is the threshold of `memorised`."""
    return max(1, int(np.floor(share * (count + 1) + 1e-9)))


def chance(count: int, share: float = SHARE) -> float:
    """What `memorised` is on average for fresh draws from the distribution of training and held-out images: by symmetry each of the
    count + 1 ranks is as likely as any other. `share`, but for rounding down to a whole rank; more where there are few.
    """
    return rank(count, share) / (count + 1)


def memorised(
    made: np.ndarray,
    held_out: np.ndarray,
    of_made: np.ndarray | None = None,
    of_held_out: np.ndarray | None = None,
    share: float = SHARE,
) -> np.ndarray:
    """(draws,): the share of generated images that are nearer to the training images than all but a `share` of those held out are.

    made (m,), held_out (n,): distances to the nearest training image, of either kind of `nearest`. of_made (draws, m), of_held_out
    (draws, n): weights of a bootstrap; None is one draw of everything. Copies give 1, fresh draws `chance(n)`. The idea of holding
    distances against those of held-out images is Meehan et al.'s (2020, arXiv 2004.05675); here: a quantile, so that a few copies show.
    """
    of_made = np.ones((1, len(made))) if of_made is None else of_made
    of_held_out = np.ones((1, len(held_out))) if of_held_out is None else of_held_out
    order = held_out.argsort()
    reached = of_held_out[:, order].cumsum(1)
    ranks = np.array([rank(total, share) for total in reached[:, -1]])
    threshold = held_out[order][(reached >= ranks[:, None]).argmax(1)]
    total = of_made.sum(1)
    near = (of_made * (made[None] <= threshold[:, None])).sum(1)
    return np.divide(near, total, out=np.full(len(total), np.nan), where=total > 0)


def diversity(real: Features, made: Features, of_real: np.ndarray | None = None, of_made: np.ndarray | None = None) -> np.ndarray:
    """(draws,): the mean distance of two generated vectors over that of two real ones. 1 for one distribution, 0 where all are the same.

    of_real (draws, n), of_made (draws, m): weights of a bootstrap; None is one draw of everything. A vector's own copy makes no pair.
    """
    check(real, made, 2)
    of_real = np.ones((1, len(real))) if of_real is None else of_real
    of_made = np.ones((1, len(made))) if of_made is None else of_made
    between = _pairs(made, of_made), _pairs(real, of_real)
    return np.divide(*between, out=np.full(len(of_real), np.nan), where=between[1] > 0)


def _pairs(found: Features, weights: np.ndarray) -> np.ndarray:
    """(draws,): the mean distance over pairs of two different vectors; NaN where a draw holds no pair."""
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    sums = ((weights @ cdist(found, found)) * weights).sum(1)
    return np.divide(sums, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def check(real: np.ndarray, made: np.ndarray, least: int) -> None:
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1]:
        raise ValueError(f"features are (n, d) of one extractor, got {real.shape} and {made.shape}")
    if min(len(real), len(made)) < least:
        raise ValueError(f"at least {least} vectors of either kind are needed, got {len(real)} real and {len(made)} generated")
