"""Masks as pictures in [-1, 1], which an autoencoder of images can encode. Each is a codec by itself, in pixels.

    Grey      a binary mask, black and white                  one picture (as SDSeg publishes it)
    Palette   a colour a class                                one picture, whatever the number of classes
    Layers    a grey picture a foreground class               as many pictures
    Beside    an image and a mask's picture                   what an autoencoder for both is trained on

Photographs in [0, 1] need nothing of their own: `Signed(channels=3)` is their picture.
"""

import math
from itertools import product

import torch
from torch import Tensor

from ..errors import InputError
from ..types import Shape
from .codec import Codec, OneHot


class Grey(Codec):
    """{0, 1} <-> black and white, copied to `channels`. decode: the mean over the channels of clamp((z + 1) / 2, 0, 1)."""

    maps = 1
    bound = 1.0

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"--method.codec.channels {channels}: a picture has at least 1 channel")
        self.channels = channels

    def shape(self, data: Shape) -> Shape:
        return one_map(data, self.channels)

    def encode(self, target: Tensor) -> Tensor:
        self.shape(tuple(target.shape))
        return self.place(target.float())

    def place(self, soft: Tensor) -> Tensor:
        return (2 * soft - 1).expand(-1, self.channels, *soft.shape[2:])

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        return ((z + 1) / 2).clamp(0, 1).mean(1, keepdim=True)


class Palette(Codec):
    """Class indices 0 .. classes-1 <-> colours that lie on a grid in the cube [-1, 1]^3, background black.

    decode: a class's share falls linearly from 1 at its colour to 0 at the distance of the two nearest colours, so a pixel between
    two colours is shared by their classes; shares sum to one.
    """

    bound = 1.0
    channels = 3
    colours: Tensor  # (classes, 3)

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"a palette needs at least 2 classes (background included), got {classes}")
        self.maps = classes
        self.register_buffer("colours", palette(classes), persistent=False)
        self.spacing = float(torch.pdist(self.colours).min())

    def shape(self, data: Shape) -> Shape:
        return one_map(data, self.channels)

    def probabilities(self, target: Tensor) -> Tensor:
        return OneHot(self.maps).probabilities(target)

    def encode(self, target: Tensor) -> Tensor:
        self.shape(tuple(target.shape))
        return self.colours[target[:, 0].long()].movedim(-1, 1)

    def place(self, soft: Tensor) -> Tensor:
        """The colours' mixture."""
        return torch.einsum("bk...,kc->bc...", soft, self.colours)

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        pixels = z.clamp(-1, 1).movedim(1, -1)  # (b, *s, 3)
        near = 1 - (pixels[..., None, :] - self.colours).norm(dim=-1) / self.spacing
        shares = near.clamp(min=1e-8).movedim(-1, 1)  # the floor keeps a pixel far from every colour decodable
        return shares / shares.sum(1, keepdim=True)


class Layers(Codec):
    """Class indices 0 .. classes-1 <-> a `Grey` picture of each class but the background, one after the other along the channels.

    Every class has a latent of its own, and costs an encoding and a decoding of its own. decode: the background has what the
    classes leave, and all are divided by their sum.
    """

    bound = 1.0

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"layers need at least 2 classes (background included), got {classes}")
        self.maps, self.grey = classes, Grey(channels)
        self.channels = (classes - 1) * channels

    def shape(self, data: Shape) -> Shape:
        return one_map(data, self.channels)

    def probabilities(self, target: Tensor) -> Tensor:
        return OneHot(self.maps).probabilities(target)

    def encode(self, target: Tensor) -> Tensor:
        self.shape(tuple(target.shape))
        return torch.cat([self.grey.encode(target == label) for label in range(1, self.maps)], 1)

    def place(self, soft: Tensor) -> Tensor:
        return torch.cat([self.grey.place(one) for one in soft[:, 1:].split(1, 1)], 1)

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        classes = torch.cat([self.grey.decode(part, shape) for part in z.chunk(self.maps - 1, 1)], 1)
        shares = torch.cat([(1 - classes.sum(1, keepdim=True)).clamp(0, 1), classes], 1)
        return shares / shares.sum(1, keepdim=True)


class Beside(Codec):
    """Two targets of one place: the first channels are one codec's, the others the second's, in data space and in model space."""

    def __init__(self, first: Codec, second: Codec) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.channels, self.maps = first.channels + second.channels, first.maps + second.maps
        bounds = [codec.bound for codec in (first, second)]
        self.bound = None if None in bounds else max(b for b in bounds if b is not None)
        self.split = first.maps  # data channels of the first: those of an image, which it decodes to as many

    def parts(self, target: Tensor) -> tuple[Tensor, Tensor]:
        return target[:, : self.split], target[:, self.split :]

    def shape(self, data: Shape) -> Shape:
        first = self.first.shape((data[0], self.split, *data[2:]))
        second = self.second.shape((data[0], data[1] - self.split, *data[2:]))
        return (data[0], first[1] + second[1], *first[2:])

    def probabilities(self, target: Tensor) -> Tensor:
        one, two = self.parts(target)
        return torch.cat([self.first.probabilities(one), self.second.probabilities(two)], 1)

    def encode(self, target: Tensor) -> Tensor:
        self.shape(tuple(target.shape))
        one, two = self.parts(target)
        return torch.cat([self.first.encode(one), self.second.encode(two)], 1)

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        one, two = z[:, : self.first.channels], z[:, self.first.channels :]
        return torch.cat([self.first.decode(one, shape), self.second.decode(two, shape)], 1)


def one_map(data: Shape, channels: int) -> Shape:
    if data[1] != 1:
        raise InputError(
            f"a mask's picture is made of one map of class indices, got a target of {data[1]} channels; give masks of one channel"
        )
    return (data[0], channels, *data[2:])


def palette(classes: int) -> Tensor:
    """(classes, 3): points of the coarsest grid in [-1, 1]^3 that has enough of them, the corners first: then primary colours and
    what is mixed of two, so that a few classes lie far apart.
    """
    levels = max(2, math.ceil(round(classes ** (1 / 3), 6)))
    values = torch.linspace(-1, 1, levels).tolist()
    grid = sorted(product(values, repeat=3), key=lambda point: (any(abs(v) < 1 for v in point), sum(v > 0 for v in point) == 3, point))
    return torch.tensor(grid[:classes])
