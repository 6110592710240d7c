"""Knowledge distillation (Hinton et al. 2015): a network learns a teacher's probabilities beside, or in place of, masks.

A batch may have an entry "soft", the teacher's probabilities of its masks, which methods hand to terms and to no network.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..types import Noised, Prediction, right
from .terms import Term, per_example


class Taught(Term):
    """What the network says against what the teacher says; zero where it says the same. The only term of examples without a mask.

    Of logits: KL(teacher || network), both softened by `temperature` (p^(1/T), brought to a sum of one), times T^2 so that its gradient
    does not shrink with T; mean over pixels. Of other predictions: the squared distance of the clean target from the teacher's place in
    model space, times min(1, SNR), which is the error of the target where there is little noise and that of the noise where there is
    much (min-SNR with gamma 1, Hang et al. 2023); there is no temperature then.
    """

    taught = True

    def __init__(self, weight: float = 0.5, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"the temperature {temperature:g} of the term Taught must be above 0; 1 leaves the teacher as sure as it is")
        self.weight, self.temperature = weight, temperature

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        if ex.soft is None or ex.soft_x0 is None:
            raise InputError("the term Taught needs a teacher's probabilities: train by somite distil, or set --data.soft.folder")
        if pred.logits is not None and pred.logits.shape == ex.soft.shape:
            return self.temperature**2 * per_example(divergence(ex.soft, pred.logits.float(), self.temperature))
        if self.temperature != 1:
            raise InputError(
                f"the temperature {self.temperature:g} is of logits, which this method does not predict: set --method.predicts logits, "
                "or leave the temperature at 1"
            )
        error = (pred.x0 - ex.soft_x0) ** 2
        return per_example(error if ex.snr is None else error * right(ex.snr.clamp(max=1), error))


def divergence(soft: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """KL in nats of Bernoulli (k = 1) or categorical distributions: (b, k, *s) probabilities and logits -> (b, *s)."""
    soft, logits = soft.clamp(0, 1), logits / temperature
    if soft.shape[1] == 1:
        p = (soft.logit() / temperature).sigmoid()
        p, log_q = torch.cat([p, 1 - p], 1), torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], 1)
    else:
        p, log_q = (soft.log() / temperature).softmax(1), logits.log_softmax(1)
    return (torch.xlogy(p, p) - p * log_q).sum(1)


def alike(soft: Tensor, maps: int) -> Tensor:
    """Probabilities as a codec of so many maps has them: one map of a foreground is two of classes, and the other way round."""
    match (soft.shape[1], maps):
        case (1, 2):
            return torch.cat([1 - soft, soft], 1)
        case (2, 1):
            return soft[:, 1:]
        case (have, want) if have != want:
            raise InputError(f"the teacher's answers have {have} maps, but this method's codec has {want}: teach the same classes")
    return soft
