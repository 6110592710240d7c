"""Codecs of class labels: vectors (b, classes) of 0 and 1 in data space, which have no axes of space."""

from abc import abstractmethod

from torch import Tensor

from ..errors import InputError
from ..types import Shape
from .codec import Codec


class Labels(Codec):
    """{0, 1} <-> {-1, +1}, a number a class. classes: how many; in a recipe null is as many as the data have, elsewhere two."""

    bound = 1.0

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.channels = self.maps = 2 if classes is None else classes
        if self.channels < 2:
            raise InputError(f"--method.codec.classes {classes}: labels are of at least 2 classes")

    def shape(self, data: Shape) -> Shape:
        if len(data) != 2 or data[1] != self.channels:
            raise InputError(
                f"the target has the shape {data[1:]} but the codec {type(self).__name__} is for labels of {self.channels} classes; "
                "leave --method.codec.classes out, or set it to the number of classes"
            )
        return data

    def encode(self, target: Tensor) -> Tensor:
        return 2 * target.float() - 1

    @abstractmethod
    def decode(self, z: Tensor, shape: Shape) -> Tensor: ...


class OneOf(Labels):
    """Each example has exactly one of the classes: softmax, and decoded probabilities sum to one."""

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        p = ((z + 1) / 2).clamp(1e-6, 1)  # the floor keeps an example that is -1 everywhere decodable
        return p / p.sum(1, keepdim=True)

    def from_logits(self, logits: Tensor) -> Tensor:
        return 2 * logits.softmax(1) - 1


class AnyOf(Labels):
    """Each example has any number of the labels: a sigmoid each."""

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        return ((z + 1) / 2).clamp(0, 1)

    def from_logits(self, logits: Tensor) -> Tensor:
        return 2 * logits.sigmoid() - 1
