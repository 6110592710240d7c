"""Do pixels given probability p turn out foreground in a share p of cases?

Bins: n of equal width on [0, 1], right-closed, (i/n, (i+1)/n]; zero belongs to the first. A value within 1e-6 of an
edge belongs where the edge itself does, so vote shares k/N, which land on edges, are not scattered by rounding
(MetricsReloaded drops p = 0 and torchmetrics closes bins on the left; neither agrees with the other on vote shares).
With count c_b, summed probability P_b and positives Y_b of bin b, and gap g_b = |P_b - Y_b| / c_b:

    ECE = sum_b c_b g_b / sum_b c_b,    MCE = max_b g_b,    ACE = mean_b g_b,    over non-empty bins.

These are the foreground probability's, not the top label's: several classes are scored one versus the rest.
Without a single pixel (an empty region) there is no gap and all three are 0.

Even a perfect sampler's vote shares are not calibrated with few members: subtract nothing, but compare with
`sampler_floor`, and never compare ensembles of different sizes without it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize
from scipy.special import betaln, digamma
from scipy.stats import betabinom

EDGE = 1e-6  # float32 means of some hundred members err by less


@dataclass(frozen=True, eq=False)
class Bins:
    """The sums that every calibration error is made of; cases add, so pooled = sum(cases, Bins.empty(n))."""

    count: NDArray[np.float64]  # (bins,) pixels
    confidence: NDArray[np.float64]  # (bins,) sum of their probabilities
    positives: NDArray[np.float64]  # (bins,) sum of their truths

    @classmethod
    def empty(cls, n: int) -> Self:
        """No pixel yet."""
        return cls(np.zeros(n), np.zeros(n), np.zeros(n))

    def array(self) -> NDArray[np.float64]:
        """The three rows as (3, bins), for `intervals.pooled_interval`; Bins(*array) is the way back."""
        return np.stack((self.count, self.confidence, self.positives))

    def __add__(self, other: Self) -> Self:
        if self.count.shape != other.count.shape:
            raise ValueError(f"cannot add {self.count.size} bins and {other.count.size}; bin both with one n")
        return type(self)(*(self.array() + other.array()))


def bins(probability: ArrayLike, truth: ArrayLike, n: int = 15) -> Bins:
    """The pixels of one case sorted into n bins of probability, by the rule at the head of this file.

    probability and truth in [0, 1], of one shape, any dimension; a soft truth (share of raters) is allowed. For a
    region pass the pixels in it: bins(p[region], y[region]). Raises ValueError for unequal shapes, values outside
    [0, 1], NaN, or n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; want at least one bin")
    p, y = _pixels(probability, truth)
    index = np.clip(np.ceil((p - EDGE) * n).astype(np.int64) - 1, 0, n - 1)
    sums = (np.bincount(index, weights, minlength=n) for weights in (np.ones_like(p), p, y))
    return Bins(*(s.astype(np.float64) for s in sums))


def ece(bins: Bins) -> float:
    """The expected calibration error, in [0, 1], lower is better: gaps weighted by pixels (Naeini et al. 2015)."""
    total = bins.count.sum()
    return float(np.abs(bins.confidence - bins.positives).sum() / total) if total > 0 else 0.0


def mce(bins: Bins) -> float:
    """The maximum calibration error, in [0, 1], lower is better: the widest gap (Naeini et al. 2015)."""
    return float(_gaps(bins).max(initial=0.0))


def ace(bins: Bins) -> float:
    """The average calibration error, in [0, 1], lower is better: the mean gap of the non-empty bins.

    As in MONAI and Barfoot et al. 2024; Nixon et al. 2019 use the name for bins of equal counts.
    """
    gaps = _gaps(bins)
    return float(gaps.mean()) if gaps.size else 0.0


def _gaps(bins: Bins) -> NDArray[np.float64]:
    full = bins.count > 0
    return np.abs(bins.confidence - bins.positives)[full] / bins.count[full]


def brier(probability: ArrayLike, truth: ArrayLike) -> float:
    """The mean squared error of the probability, in [0, 1], lower is better: mean (p - y)^2 (Brier 1950).

    Raises ValueError for unequal shapes, values outside [0, 1], NaN, or no pixels.
    """
    p, y = _pixels(probability, truth)
    return float(np.mean((p - y) ** 2)) if p.size else _none()


def nll(probability: ArrayLike, truth: ArrayLike, clip: float = 1e-6) -> float:
    """The mean negative log-likelihood in nats, >= 0, lower is better: -mean(y log p + (1 - y) log(1 - p)).

    p is first clipped to [clip, 1 - clip]: a pixel that is surely wrong costs -log(clip), 13.8 nats by default, and
    not infinity. Report clip with the number. Raises ValueError as `brier` does, and for clip outside (0, 0.5).
    """
    if not 0 < clip < 0.5:
        raise ValueError(f"clip is {clip}; want a number in (0, 0.5), such as 1e-6")
    p, y = _pixels(probability, truth)
    p = np.clip(p, clip, 1 - clip)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))) if p.size else _none()


def _none() -> float:
    raise ValueError("no pixels to score; want at least one: this case's region is empty, so leave it out explicitly")


def _pixels(probability: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if p.shape != y.shape:
        raise ValueError(f"probability has shape {p.shape} and truth {y.shape}; want one shape")
    for name, values in (("probability", p), ("truth", y)):
        if not np.all((values >= -EDGE) & (values <= 1 + EDGE)):
            raise ValueError(f"{name} spans [{values.min()}, {values.max()}]; want [0, 1]: apply a sigmoid or clip")
    return p.ravel(), y.ravel()


def boundary_band(truth: NDArray[np.bool_], width: float) -> NDArray[np.bool_]:
    """The pixels within `width` pixels of the truth's boundary, on both sides: where calibration is hard.

    A pixel is in the band if a pixel of the other class lies within Euclidean distance width of it, centre to centre:
    width 1 is one layer inside and one outside. The image's border is no boundary; a truth that is empty or full has
    no band. Raises ValueError unless truth is boolean and width >= 1.
    """
    _check_truth(truth)
    if not width >= 1:
        raise ValueError(f"width is {width}; want at least 1 pixel")
    if not truth.any() or truth.all():  # the transform of a constant is undefined
        return np.zeros_like(truth)
    inside, outside = (np.asarray(ndimage.distance_transform_edt(part)) for part in (truth, ~truth))
    across = np.where(truth, inside, outside)
    return across <= width


def foreground(probability: NDArray, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that are foreground in the truth or the prediction: truth or probability >= 0.5.

    It leaves out easy background, which swamps a whole image's ECE. Its price: it is chosen by looking at the truth,
    so below 0.5 it holds positives only, and even an oracle has a gap there. Compare methods on it; do not read its
    ECE as a distance from calibration. Raises ValueError unless truth is boolean and the shapes agree.
    """
    _check_truth(truth)
    if np.shape(probability) != truth.shape:
        raise ValueError(f"probability has shape {np.shape(probability)} and truth {truth.shape}; want one shape")
    return truth | (np.asarray(probability) >= 0.5)


def _check_truth(truth: NDArray[np.bool_]) -> None:
    if truth.dtype != np.bool_:
        raise ValueError(f"truth has dtype {truth.dtype}; want bool: compare first, e.g. truth > 0.5")


def sampler_floor(alpha: float, beta: float, members: int) -> float:
    """The ECE that the vote shares of a *perfect* sampler have, in [0, 1], because it has few members.

    If the true p ~ Beta(alpha, beta), k of N members vote with probability BetaBin(k; N, alpha, beta), and given k the
    pixel is foreground with probability (alpha + k) / (alpha + beta + N) rather than k / N, so

        floor = sum_k BetaBin(k; N, alpha, beta) |k / N - (alpha + k) / (alpha + beta + N)|.

    It holds for bins that keep the vote shares apart: n >= N + 1 bins; fewer can only lower it. Uniform p
    (alpha = beta = 1): 0.33 for one member, 0.086 for five. Raises ValueError unless all three are positive.
    """
    if members < 1 or not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha, beta, members are {alpha}, {beta}, {members}; want positive, and at least one member")
    k = np.arange(members + 1)
    gap = np.abs(k / members - (alpha + k) / (alpha + beta + members))
    return float(betabinom.pmf(k, members, alpha, beta) @ gap)


def vote_histogram(members: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many pixels got k = 0..N votes: boolean members (N, *s) -> (N + 1,). Histograms of cases add.

    Raises ValueError unless members are boolean with at least one member.
    """
    if members.dtype != np.bool_ or members.ndim < 2 or len(members) < 1:
        raise ValueError(f"members are {members.dtype} of shape {members.shape}; want boolean masks (members, *s)")
    votes = np.count_nonzero(members, axis=0)
    return np.bincount(votes.ravel(), minlength=len(members) + 1).astype(np.int64)


def vote_counts(members: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(2, N + 1): pixels with k = 0..N votes, and those of them that are foreground in truth. Counts of cases add."""
    return np.stack([vote_histogram(members), vote_histogram(members[:, truth])])


def vote_ece(pixels: ArrayLike, positives: ArrayLike) -> float:
    """The ECE of vote shares k / N, each a bin of its own: what `sampler_floor` is the floor of.

    The two rows of `vote_counts`, (N + 1,) each.
    """
    n, y = np.asarray(pixels, dtype=np.float64), np.asarray(positives, dtype=np.float64)
    share = np.arange(n.size) / (n.size - 1)
    return float(np.abs(share * n - y).sum() / n.sum())


def fit_beta(vote_histogram: ArrayLike) -> tuple[float, float]:
    """The Beta(alpha, beta) of the pixels' true p under which the histogram of votes is likeliest.

    Maximises sum_k h_k log BetaBin(k; N, alpha, beta) (Griffiths 1973) over [1e-4, 1e4]^2 in log space, from several
    starts. Where the likelihood has no maximum (every pixel unanimous, or votes no more spread than a binomial) the
    answer lies on that box. Feed it to `sampler_floor`. Takes (N + 1,) counts of k = 0..N votes, N >= 2. Raises
    ValueError for fewer members, whose votes fix alpha / beta only, for negative counts, or for none.
    """
    counts = np.asarray(vote_histogram, dtype=np.float64)
    n = counts.size - 1
    if counts.ndim != 1 or n < 2:
        raise ValueError(f"histogram has shape {counts.shape}; want (N + 1,) counts of at least two members (N >= 2)")
    if not (np.all(counts >= 0) and 0 < counts.sum() < np.inf):
        raise ValueError(f"histogram is {counts}; want non-negative counts of at least one pixel")
    weights, k = counts / counts.sum(), np.arange(n + 1)

    def loss(logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a, b = np.exp(logs)
        value = -(weights @ betaln(k + a, n - k + b) - betaln(a, b))
        common = digamma(a + b) - digamma(n + a + b)
        slopes = [weights @ digamma(k + a) - digamma(a), weights @ digamma(n - k + b) - digamma(b)]
        return value, -np.array([a, b]) * (np.array(slopes) + common)

    share = np.clip(weights @ k / n, 1e-3, 1 - 1e-3)
    starts = [np.log([c * share, c * (1 - share)]) for c in (0.1, 1.0, 10.0, 1000.0)]
    limits = [(np.log(1e-4), np.log(1e4))] * 2
    fits = [
        optimize.minimize(loss, np.clip(s, *limits[0]), jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-14}) for s in starts
    ]
    alpha, beta = np.exp(min(fits, key=lambda fit: fit.fun).x)
    return float(alpha), float(beta)
