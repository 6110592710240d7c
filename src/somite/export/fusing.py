"""An ensemble's fusion as `predict.fusion` has it, of all members at once and in functions that a program can be written with."""

import torch
from torch import Tensor

from ..predict.control import Controlled
from ..predict.fusion import Fusion, Majority, Mean, MeanSquared
from ..predict.temperature import CLIP, Tempered


def known(fusion: Fusion) -> bool:
    return known(fusion.fusion) if isinstance(fusion, Tempered | Controlled) else type(fusion) in (Mean, MeanSquared, Majority)


def fused(fusion: Fusion, members: Tensor) -> Tensor:
    """(b, m, k, h, w) -> (b, k, h, w)"""
    match fusion:
        case Tempered():
            return tempered(fused(fusion.fusion, members), fusion.temperature)
        case Controlled():
            return fused(fusion.fusion, members)
        case Majority():
            return votes(members).float().mean(1)
        case MeanSquared():
            return members.mean(1) ** 2
        case _:
            return members.mean(1)


def votes(members: Tensor) -> Tensor:
    k = members.shape[2]
    return members >= 0.5 if k == 1 else torch.arange(k)[:, None, None] == members.argmax(2, keepdim=True)


def tempered(probability: Tensor, temperature: float) -> Tensor:
    p = probability.double().clamp(CLIP, 1 - CLIP)
    if p.shape[1] == 1:
        return ((p.log() - (1 - p).log()) / temperature).sigmoid().float()
    return (p.log() / temperature).softmax(1).float()


def spread(members: Tensor) -> Tensor:
    """(b, m, k, h, w) -> (b, k, h, w): the standard deviation of those that were drawn."""
    return ((members - members.mean(1, keepdim=True)) ** 2).mean(1).sqrt()


def threshold(fusion: Fusion) -> float:
    """From which probability on a pixel of one class is foreground."""
    match fusion:
        case Controlled():
            return float(torch.tensor(fusion.threshold))  # as `decide` has it, in 32 bits
        case Tempered():
            return threshold(fusion.fusion)
        case _:
            return 0.5


def decided(fusion: Fusion, probability: Tensor) -> Tensor:
    """(b, k, h, w) -> (b, h, w) uint8"""
    return (probability[:, 0] >= threshold(fusion) if probability.shape[1] == 1 else probability.argmax(1)).to(torch.uint8)
