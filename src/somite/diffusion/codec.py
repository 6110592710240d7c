"""Codecs map between data space (what tasks see) and model space (what methods diffuse).

A mask in data space is a label map (b, 1, *s): {0, 1} for a binary mask, class indices for more; an image is (b, c, *s). In
model space the target has `channels` channels and whatever size `shape` says. `decode` gives `maps` channels at the
target's own size: probabilities in [0, 1] where the target is a mask.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..types import Shape


class Codec(nn.Module, ABC):
    """channels: of model space. maps: how many `decode` gives. bound: the largest |z| that a target is encoded to, by which
    samplers clip; None where there is none, as for latents.
    """

    channels: int = 1
    maps: int = 1
    bound: float | None = None

    def begin(self) -> None:
        """Raises InputError where nothing can be trained on it: asked before a training, and not of a finished run."""

    @abstractmethod
    def shape(self, data: Shape) -> Shape:
        """The shape in model space of a target of shape `data` in data space. Raises InputError for a target it cannot encode."""

    @abstractmethod
    def encode(self, target: Tensor) -> Tensor:
        """(b, c, *s) in data space -> `shape` of it in model space."""

    @abstractmethod
    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        """Model space -> (b, maps, *s), where `shape` is the target's (b, c, *s): what was padded to encode is cut again."""

    def probabilities(self, target: Tensor) -> Tensor:
        """The target as (b, maps, *s), what loss terms on logits and auxiliary maps compare with: probabilities of a mask."""
        return target.float()

    def place(self, soft: Tensor) -> Tensor:
        """Probabilities (b, maps, *s) in model space: of those of a mask, where `encode` puts the mask."""
        raise InputError(f"the codec {type(self).__name__} has no place for a teacher's probabilities; choose another --method.codec")

    def from_logits(self, logits: Tensor) -> Tensor:
        """Where a network predicts logits: their place in model space, so that decode(from_logits(l)) is the probability."""
        raise InputError(
            f"the codec {type(self).__name__} has no logits; set --method.predicts eps, x0 or v (of a feed-forward method: x0)"
        )


class Pixelwise(Codec):
    """Each number of the target by itself; `channels` is the target's own number of channels, 1 for a mask."""

    bound = 1.0

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"--method.codec.channels {channels}: a target has at least 1 channel")
        self.channels = self.maps = channels

    def shape(self, data: Shape) -> Shape:
        if data[1] != self.channels:
            raise InputError(
                f"the target has {data[1]} channels but the codec {type(self).__name__} is for {self.channels}; "
                f"set --method.codec.channels {data[1]}"
            )
        return data

    def place(self, soft: Tensor) -> Tensor:
        return self.encode(soft)


class Signed(Pixelwise):
    """{0, 1} <-> {-1, +1}: the default. The signal-to-noise ratio at each timestep is four times that of `Unit`.

    amplitude b: {-b, +b} instead, which multiplies that ratio by b^2 at every timestep. Below 1 noise wins earlier (input
    scaling, Chen 2023; for segmentation Christensen et al., arXiv 2504.05977).
    """

    def __init__(self, amplitude: float = 1.0, channels: int = 1) -> None:
        super().__init__(channels)
        if amplitude <= 0:
            raise InputError(f"amplitude {amplitude} of the Signed codec must be above 0; 1 is usual")
        self.amplitude = self.bound = amplitude

    def encode(self, target: Tensor) -> Tensor:
        return self.amplitude * (2 * target.float() - 1)

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        return (z / self.amplitude).add_(1).div_(2).clamp_(0, 1)

    def from_logits(self, logits: Tensor) -> Tensor:
        return self.amplitude * torch.tanh(logits / 2)


class Unit(Pixelwise):
    """{0, 1} diffused as it is, as the official MedSegDiff code and its descendants do."""

    def encode(self, target: Tensor) -> Tensor:
        return target.float()

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        return z.clamp(0, 1)

    def from_logits(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class Logits(Pixelwise):
    """A mask as scaled logits: {0, 1} <-> {-1, +1} where +1 stands for a probability of `confidence`.

    Unlike `Signed` nothing is clamped: z may leave [-1, 1] and still decodes to a probability below 1, so there is no bound.
    """

    bound = None

    def __init__(self, confidence: float = 0.99, channels: int = 1) -> None:
        super().__init__(channels)
        if not 0.5 < confidence < 1:
            raise InputError(f"confidence {confidence} of the Logits codec is not in (0.5, 1); 0.99 is usual")
        self.scale = math.log(confidence / (1 - confidence))

    def encode(self, target: Tensor) -> Tensor:
        return 2 * target.float() - 1

    def place(self, soft: Tensor) -> Tensor:
        least = 1 / (1 + math.exp(self.scale))  # of confidence that a mask has
        return soft.clamp(least, 1 - least).logit() / self.scale

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        return (z * self.scale).sigmoid()

    def from_logits(self, logits: Tensor) -> Tensor:
        return logits / self.scale


class OneHot(Codec):
    """Class indices 0..classes-1 <-> one channel a class in {-1, +1}; decoded channels are normalised to sum to one."""

    bound = 1.0

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"a one-hot codec needs at least 2 classes (background included), got {classes}")
        self.channels = self.maps = classes

    def shape(self, data: Shape) -> Shape:
        if data[1] != 1:
            raise InputError(f"a one-hot codec encodes one map of class indices, got a target of {data[1]} channels")
        return (data[0], self.channels, *data[2:])

    def probabilities(self, target: Tensor) -> Tensor:
        return F.one_hot(target[:, 0].long(), self.channels).movedim(-1, 1).float()

    def encode(self, target: Tensor) -> Tensor:
        return self.place(self.probabilities(target))

    def place(self, soft: Tensor) -> Tensor:
        return 2 * soft - 1

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        p = ((z + 1) / 2).clamp(1e-6, 1.0)  # the floor keeps a voxel that is -1 everywhere decodable
        return p / p.sum(1, keepdim=True)

    def from_logits(self, logits: Tensor) -> Tensor:
        return 2 * logits.softmax(1) - 1
