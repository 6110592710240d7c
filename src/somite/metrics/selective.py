"""Does confidence rank the cases by how wrong they are? Risk-coverage curves over cases.

Answer only the k most confident of n cases: coverage k / n, selective risk r_k = the mean risk of those answered
(El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017). AURC = (1 / n) sum_k r_k (Geifman et al. 2019, section 2).

Ties: every order of equally confident cases is equally likely and the curve is the expectation over them. Within a
tie each case then carries the mean risk of the tie, so no order of rows in a file can flatter a constant confidence.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def risk_coverage(risk: ArrayLike, confidence: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve (coverage, selective risk), both (cases,), from the most confident case alone to all of them.

    risk (cases,) is the loss of each case, lower is better, such as 1 - Dice; confidence (cases,) is any score,
    higher is surer. Coverage runs from 1 / n to 1; the last risk is the mean risk. Raises ValueError for unequal
    lengths, no case or NaN.
    """
    losses, scores = np.asarray(risk, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if losses.ndim != 1 or losses.shape != scores.shape or losses.size == 0:
        raise ValueError(f"risk has shape {losses.shape} and confidence {scores.shape}; want one number per case each")
    if np.isnan(losses).any() or np.isnan(scores).any():
        raise ValueError("risk or confidence holds NaN; want a number for every case: mend or drop the case in both")
    _, tie = np.unique(-scores, return_inverse=True)  # 0 is the most confident
    shared = (np.bincount(tie, losses) / np.bincount(tie))[np.sort(tie)]
    kept = np.arange(1, losses.size + 1)
    return kept / losses.size, np.cumsum(shared) / kept


def aurc(risk: ArrayLike, confidence: ArrayLike) -> float:
    """The area under the risk-coverage curve, in the unit of risk, lower is better: (1 / n) sum_k r_k.

    It mixes how good the method is with how well confidence ranks; `excess_aurc` takes the first away. Arguments and
    errors as in `risk_coverage`.
    """
    return float(risk_coverage(risk, confidence)[1].mean())


def excess_aurc(risk: ArrayLike, confidence: ArrayLike) -> float:
    """What the ranking costs: AURC minus that of the ideal order, by risk itself; >= 0, and 0 for a perfect ranking.

    E-AURC of Geifman et al. 2019, with the exact ideal instead of their approximation for 0/1 risks. Arguments and
    errors as in `risk_coverage`.
    """
    return aurc(risk, confidence) - aurc(risk, -np.asarray(risk, dtype=np.float64))
