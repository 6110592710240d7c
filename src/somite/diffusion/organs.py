"""A codec of label maps whose classes are decided one by one: vox2vec's multi-label way of segmenting (arXiv 2307.14725)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..types import Shape
from .codec import Codec


class Independent(Codec):
    """Class indices 0..classes-1 <-> one channel in {-1, +1} for each class but the background, a sigmoid each.

    Decoded: the classes' probabilities with 1 - the largest of them as the background's before them, brought to a sum of one. So a class wins
    exactly where its own probability is the largest and above one half.
    """

    bound = 1.0

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"--method.codec.classes {classes}: there are at least 2, the background included")
        self.channels, self.maps = classes - 1, classes

    def shape(self, data: Shape) -> Shape:
        if data[1] != 1:
            raise InputError(f"this codec encodes one map of class indices, got a target of {data[1]} channels")
        return (data[0], self.channels, *data[2:])

    def probabilities(self, target: Tensor) -> Tensor:
        return F.one_hot(target[:, 0].long(), self.maps).movedim(-1, 1).float()

    def encode(self, target: Tensor) -> Tensor:
        return self.place(self.probabilities(target))

    def place(self, soft: Tensor) -> Tensor:
        return 2 * soft[:, 1:] - 1

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        own = ((z + 1) / 2).clamp(0, 1)
        every = torch.cat([1 - own.amax(1, keepdim=True), own], 1)
        return every / every.sum(1, keepdim=True)

    def from_logits(self, logits: Tensor) -> Tensor:
        return torch.tanh(logits / 2)
