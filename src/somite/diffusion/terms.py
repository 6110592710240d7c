"""Loss terms: each maps a Prediction and the Noised example that it was made from to one value an example, (b,).

Terms never average over the batch, and what is zero at the target is said in each docstring.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..types import Noised, Prediction, right

NO_LOGITS = "this loss term needs logits, but the method predicts noise or x0; set --method.predicts logits or use the terms Noise or Clean"


def per_example(x: Tensor) -> Tensor:
    """(b, ...) -> (b,), the mean over everything else, which for class labels is nothing."""
    return x.reshape(len(x), -1).mean(1)


class Term(ABC):
    """weight: what its values are multiplied with before all terms of a method are summed. logits: whether it is of a network's logits, which
    only some methods predict. taught: whether it is of a teacher's answer, and so of examples whose mask nobody knows; all others are not
    asked about these.
    """

    weight: float = 1.0
    logits: bool = False
    taught: bool = False

    @abstractmethod
    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        """(b,), one value an example, not yet weighted. `pred.logits` and all of `pred` and `ex` that is a map are (b, k, *s); the target
        is in [0, 1].
        """


class Noise(Term):
    """| eps - eps_hat |^power, mean over pixels: with power 2 Ho et al. 2020, eq. 14, with power 1 SDSeg's and latent diffusion's.

    `summed` sums over them, as the published SegDiff does: the loss then grows with the image, and overflows half precision.
    """

    def __init__(self, weight: float = 1.0, summed: bool = False, power: float = 2.0) -> None:
        self.weight, self.summed, self.power = weight, summed, power

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        error = (pred.eps - ex.eps).abs() ** self.power
        return error.flatten(1).sum(1) if self.summed else per_example(error)


class Clean(Term):
    """| x0 - x0_hat |^power: with power 1 and weight lambda SDSeg's latent estimation loss, with power 2 the x0 loss."""

    def __init__(self, weight: float = 1.0, power: float = 2.0) -> None:
        self.weight, self.power = weight, power

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        return per_example((pred.x0 - ex.x0).abs() ** self.power)


class Aux(Term):
    """|| aux[key] - target ||^2 with the target in {0, 1}: MedSegDiffNCA's RGB loss, MedSegDiff's calibration loss.

    `channels` keeps only the first channels of the map (the official MedSegDiffNCA code reads R alone, weight 10).
    `paired=False` is that code's broadcasting slip: (b, h, w) against (b, 1, h, w) compares every map with every mask of
    the batch, and its minimiser is the mean mask of the batch. It is here to reproduce published numbers only.
    """

    def __init__(self, key: str, weight: float = 1.0, channels: int | None = None, paired: bool = True) -> None:
        self.key, self.weight, self.channels, self.paired = key, weight, channels, paired

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        aux = pred.output.aux[self.key][:, : self.channels]
        if ex.target.shape[1] not in (1, aux.shape[1]):
            raise InputError(
                f"the auxiliary map {self.key!r} has {aux.shape[1]} channels but the mask has {ex.target.shape[1]} classes; drop this term for multi-class masks (--method.terms)"
            )
        if self.paired:
            return per_example((aux - ex.target) ** 2)
        return per_example((aux[:, None] - ex.target[None]) ** 2)


class Early(Term):
    """|| aux["early"] - value ||^2: what a network with a loop says early against what it says at last, which takes no gradient.

    Intra-loop self-distillation (ELT, arXiv 2604.09168): a loop that may be left early. Zero where further updates change nothing.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        if "early" not in pred.output.aux:
            raise InputError("the term Early needs a network that hands on what it said early; for GeCA set --method.network.early true")
        return per_example((pred.output.aux["early"] - pred.output.value.detach()) ** 2)


class Variational(Term):
    """One term of the variational bound, in bits a dimension: what trains a learned variance (Nichol & Dhariwal 2021, eq. 15).

    KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)), and at t = 0 the negative log-likelihood of x0 under a Gaussian integrated
    over bins of 2/255 (Ho et al. 2020, eq. 13). The mean is detached: this term moves the variance alone.
    `tanh_cdf` takes guided-diffusion's approximation of the normal distribution function (0.4 % off at t = 0).
    """

    def __init__(self, weight: float = 1.0, tanh_cdf: bool = False) -> None:
        self.weight, self.cdf = weight, tanh_normal_cdf if tanh_cdf else torch.special.ndtr

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        if pred.output.var is None or ex.posterior is None:
            raise InputError(
                "the term Variational needs a diffusion method and a network that predicts its variance (learn_variance: true)"
            )
        of_x0, of_x, small, large = (right(c, ex.x_t) for c in vars(ex.posterior).values())
        mean = of_x0 * pred.x0.detach() + of_x * ex.x_t
        share = (pred.output.var.float() + 1) / 2
        log_var = share * large + (1 - share) * small
        true_mean = of_x0 * ex.x0 + of_x * ex.x_t
        kl = 0.5 * (log_var - small + (small - log_var).exp() + (true_mean - mean) ** 2 * (-log_var).exp() - 1)
        nll = -discretised_log_likelihood(ex.x0, mean, 0.5 * log_var, self.cdf)
        return per_example(torch.where(right(ex.t, ex.x_t) == 0, nll, kl)) / math.log(2)


class CrossEntropy(Term):
    """Cross-entropy of logits against the target: binary for one channel, softmax for more. Zero for infinite confidence."""

    logits = True

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        return per_example(cross_entropy(_logits(pred), ex.target))


class BinaryCrossEntropy(Term):
    """Cross-entropy of each channel's logit by itself, for labels of which an example has any number. Zero for infinite confidence."""

    logits = True

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        return per_example(F.binary_cross_entropy_with_logits(_logits(pred), ex.target, reduction="none"))


class Dice(Term):
    """1 - soft Dice, an example at a time, mean over the classes (background left out where there are two channels or more).

    (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth), Milletari et al. 2016 with plain sums, as in MONAI and nnU-Net.
    """

    logits = True

    def __init__(self, weight: float = 1.0, smooth: float = 1e-5) -> None:
        self.weight, self.smooth = weight, smooth

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        return soft_dice_loss(_logits(pred), ex.target, self.smooth)


class DiceCE(Term):
    """Cross-entropy plus Dice: what nnU-Net trains with."""

    logits = True

    def __init__(self, weight: float = 1.0, smooth: float = 1e-5) -> None:
        self.weight, self.smooth = weight, smooth

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        logits = _logits(pred)
        return per_example(cross_entropy(logits, ex.target)) + soft_dice_loss(logits, ex.target, self.smooth)


class DeepSupervision(Term):
    """DiceCE on the logits of coarser decoder levels, aux["deep"] (b, levels, k, *s), weights 1/2, 1/4, ...

    Beside a `DiceCE` of weight 1 on the output itself this is nnU-Net's deep supervision, up to its normalisation. Logits are enlarged, not
    masks reduced: where one logit stands for a block of pixels both sums of the Dice and the cross-entropy are those with the block's mean.
    """

    def __init__(self, weight: float = 1.0, smooth: float = 1e-5) -> None:
        self.weight, self.smooth = weight, smooth

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        if "deep" not in pred.output.aux:
            raise InputError(
                "the term DeepSupervision needs a network with heads at coarser levels; set --method.network.deep true (MedSegDiffNCA) or deep_heads (DynUNet)"
            )
        total = torch.zeros(len(ex.x0), device=ex.x0.device)
        for level, logits in enumerate(pred.output.aux["deep"].unbind(1)):
            loss = per_example(cross_entropy(logits, ex.target)) + soft_dice_loss(logits, ex.target, self.smooth)
            total = total + 0.5 ** (level + 1) * loss
        return total


def tanh_normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor, cdf: Callable[[Tensor], Tensor]) -> Tensor:
    """log P(x - 1/255 < y < x + 1/255), y ~ N(mean, std^2), the outermost bins of [-1, 1] reaching to infinity."""
    above = cdf((x - mean + 1 / 255) * (-log_std).exp())
    below = cdf((x - mean - 1 / 255) * (-log_std).exp())
    above = torch.where(x > 0.999, torch.ones_like(above), above)
    below = torch.where(x < -0.999, torch.zeros_like(below), below)
    return (above - below).clamp(min=1e-12).log()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(b, k, *s) against probabilities (b, k, *s), not averaged."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return F.cross_entropy(logits, target, reduction="none")


def soft_dice_loss(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """(b,)"""
    p = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:]
    y = target if target.shape[1] == 1 else target[:, 1:]
    p, y = p.flatten(2), y.flatten(2)  # (b, k, n)
    dice = (2 * (p * y).sum(2) + smooth) / (p.sum(2) + y.sum(2) + smooth)
    return 1 - dice.mean(1)


def _logits(pred: Prediction) -> Tensor:
    if pred.logits is None:
        raise InputError(NO_LOGITS)
    return pred.logits.float()
