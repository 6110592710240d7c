"""The loss by which heads are trained on frozen features of CT, as vox2vec's authors do (arXiv 2307.14725): organs by themselves, in the body."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..types import Noised, Prediction
from .terms import NO_LOGITS, Term


class ProbeLoss(Term):
    """Binary cross-entropy, mean over the body's voxels and the classes, plus the mean over classes of 1 - 2 <p, g> / (|p|^2 + |g|^2 + 1)
    in the body. The body is the condition's "body" (b, 1, *s), everything where there is none; classes may overlap. Zero for infinite
    confidence, but for the 1 in the Dice: a class of n voxels still costs 1 / (2 n + 1).
    """

    # Paper: the cross-entropy's mean is over the bodies of a whole batch; here: of each example, because terms never average over a batch.

    logits = True

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        if pred.logits is None:
            raise InputError(NO_LOGITS)
        logits = pred.logits.float()
        target = ex.target[:, -logits.shape[1] :]  # of `Independent` there are logits of all classes but the first, the background
        body = torch.ones_like(logits[:, :1]) if ex.body is None else ex.body.to(logits.dtype)
        return body_cross_entropy(logits, target, body) + body_dice_loss(logits, target, body).mean(1)


def body_cross_entropy(logits: Tensor, target: Tensor, body: Tensor) -> Tensor:
    """(b,): logits and target (b, k, *s), body (b, 1, *s). An example without a body costs nothing."""
    apart = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1, keepdim=True)
    return (apart * body).flatten(1).sum(1) / body.flatten(1).sum(1).clamp(min=1)


def body_dice_loss(logits: Tensor, target: Tensor, body: Tensor) -> Tensor:
    """(b, k)"""
    p, g = (logits.sigmoid() * body).flatten(2), (target * body).flatten(2)
    return 1 - 2 * (p * g).sum(2) / ((p**2).sum(2) + (g**2).sum(2) + 1)
