"""Codecs map between data space (masks and probabilities, what tasks see) and model space (what methods diffuse).

A mask in data space is a label map (b, 1, *s): {0, 1} for a binary mask, class indices for more. In model space it has
`channels` channels. `decode` gives probabilities (b, channels, *s) in [0, 1].
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..types import Shape


class Codec(nn.Module, ABC):
    channels: int = 1

    def shape(self, data: Shape) -> Shape:
        """The shape in model space of a target of shape `data` in data space."""
        return (data[0], self.channels, *data[2:])

    def probabilities(self, target: Tensor) -> Tensor:
        """The target as probabilities (b, channels, *s): what loss terms on logits compare with."""
        return target.float()

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor: ...

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor: ...

    @abstractmethod
    def from_logits(self, logits: Tensor) -> Tensor:
        """Where a network predicts logits: their place in model space, so that decode(from_logits(l)) is the probability."""


class Signed(Codec):
    """{0, 1} <-> {-1, +1}: the default. The signal-to-noise ratio at each timestep is four times that of `Unit`.

    amplitude b: {-b, +b} instead, which multiplies that ratio by b^2 at every timestep. Below 1 noise wins earlier (input
    scaling, Chen 2023; for segmentation Christensen et al., arXiv 2504.05977); give the sampler the same number as its clip.
    """

    def __init__(self, amplitude: float = 1.0) -> None:
        super().__init__()
        if amplitude <= 0:
            raise InputError(f"amplitude {amplitude} of the Signed codec must be above 0; 1 is usual")
        self.amplitude = amplitude

    def encode(self, target: Tensor) -> Tensor:
        return self.amplitude * (2 * target.float() - 1)

    def decode(self, z: Tensor) -> Tensor:
        return ((z / self.amplitude + 1) / 2).clamp(0, 1)

    def from_logits(self, logits: Tensor) -> Tensor:
        return self.amplitude * torch.tanh(logits / 2)


class Unit(Codec):
    """{0, 1} diffused as it is, as the official MedSegDiff code and its descendants do."""

    def encode(self, target: Tensor) -> Tensor:
        return target.float()

    def decode(self, z: Tensor) -> Tensor:
        return z.clamp(0, 1)

    def from_logits(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class Logits(Codec):
    """A mask as scaled logits: {0, 1} <-> {-1, +1} where +1 stands for a probability of `confidence`.

    Unlike `Signed` nothing is clamped: z may leave [-1, 1] and still decodes to a probability below 1. Samplers for this
    codec should not clip (clip: null).
    """

    def __init__(self, confidence: float = 0.99) -> None:
        super().__init__()
        if not 0.5 < confidence < 1:
            raise InputError(f"confidence {confidence} of the Logits codec is not in (0.5, 1); 0.99 is usual")
        self.scale = math.log(confidence / (1 - confidence))

    def encode(self, target: Tensor) -> Tensor:
        return 2 * target.float() - 1

    def decode(self, z: Tensor) -> Tensor:
        return (z * self.scale).sigmoid()

    def from_logits(self, logits: Tensor) -> Tensor:
        return logits / self.scale


class OneHot(Codec):
    """Class indices 0..classes-1 <-> one channel a class in {-1, +1}; decoded channels are normalised to sum to one."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"a one-hot codec needs at least 2 classes (background included), got {classes}")
        self.channels = classes

    def probabilities(self, target: Tensor) -> Tensor:
        return F.one_hot(target[:, 0].long(), self.channels).movedim(-1, 1).float()

    def encode(self, target: Tensor) -> Tensor:
        return 2 * self.probabilities(target) - 1

    def decode(self, z: Tensor) -> Tensor:
        p = ((z + 1) / 2).clamp(1e-6, 1)  # the floor keeps a voxel that is -1 everywhere decodable
        return p / p.sum(1, keepdim=True)

    def from_logits(self, logits: Tensor) -> Tensor:
        return 2 * logits.softmax(1) - 1
