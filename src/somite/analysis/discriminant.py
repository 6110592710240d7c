"""Linear discriminant analysis: the probe that has a closed form (Fisher 1936), with classes as frequent as they are in whole volumes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Discriminant:
    """The class of a vector x is the largest of weights' x + offsets."""

    weights: Tensor  # (d, k)
    offsets: Tensor  # (k,)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,) classes."""
        return (x.double() @ self.weights + self.offsets).argmax(1)


def discriminant(x: Tensor, y: Tensor, priors: Tensor, shrinkage: float = 1e-2) -> Discriminant:
    """x (n, d) with classes y (n,), a few of each; priors (k,): how frequent each class is. With one covariance for all classes,

        weights = S^-1 m_c,  offsets = log prior_c - m_c' S^-1 m_c / 2,

    S the classes' mean covariance, each class counted alike, drawn by `shrinkage` towards the same variance for all numbers. Numbers are
    standardised first, so that no unit counts more. A class without examples is never answered.
    """
    x = x.double()
    scale = x.std(0).clamp(min=1e-6)
    z = x / scale
    k, d, seen = len(priors), x.shape[1], y.unique().tolist()
    means, pooled = torch.zeros(k, d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for label in seen:
        here = z[y == label]
        means[label] = here.mean(0)
        apart = here - means[label]
        pooled += apart.T @ apart / (len(here) * len(seen))
    pooled = (1 - shrinkage) * pooled + shrinkage * pooled.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    weights = torch.linalg.solve(pooled, means.T)  # (d, k)
    offsets = torch.full((k,), -torch.inf, dtype=torch.float64)
    for label in seen:
        offsets[label] = priors[label].double().clamp(min=1e-12).log() - means[label] @ weights[:, label] / 2
    return Discriminant(weights / scale[:, None], offsets)
