"""LPIPS, how far apart two images look to a network (Zhang et al. 2018): AlexNet's features, weighted as people judged.

    d(a, b) = sum_layers mean_pixels sum_channels w_c (a_c - b_c)^2

with a, b the outputs of AlexNet's five rectified convolutions, each pixel's channels scaled to unit length, and the published weights
w >= 0, which torchmetrics brings. The backbone is not torchvision's, which it would need: five convolutions of the same names take
torchvision's weights.
"""

from collections.abc import Mapping
from importlib.resources import as_file, files

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..errors import InputError

WEIGHTS = "alexnet-owt-7be5be79.pth"
ORIGIN = f"https://download.pytorch.org/models/{WEIGHTS}"
SIDE = 31  # pixels of the shorter side: smaller images leave nothing after two poolings
BATCH = 16
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation for inputs in [-1, 1]


def features() -> nn.Sequential:
    """AlexNet's convolutions (Krizhevsky 2014) up to the last rectification, numbered as in torchvision."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


class Lpips:
    """`alexnet`: weights by torchvision's names, features.0.weight and so on; others are not looked at. Raises InputError where one
    is missing or has another shape.
    """

    def __init__(self, alexnet: Mapping[str, Tensor]) -> None:
        with torch.random.fork_rng():
            self.network = features().requires_grad_(False).eval()
        for name, wanted in self.network.state_dict().items():
            have = alexnet.get(f"features.{name}")
            if have is None or have.shape != wanted.shape:
                found = "has none" if have is None else f"has {tuple(have.shape)}"
                raise InputError(f"AlexNet has weights features.{name} of {tuple(wanted.shape)}, and this file {found}; give {WEIGHTS}")
            wanted.copy_(have)
        with as_file(files("torchmetrics.functional.image") / "lpips_models" / "alex.pth") as path:
            heads = torch.load(path, map_location="cpu", weights_only=True)
        self.heads = [heads[f"lin{layer}.model.1.weight"].flatten() for layer in range(5)]

    def __call__(self, images: ArrayLike, references: ArrayLike) -> NDArray[np.float64]:
        """Grey images (n, h, w) in [0, 1], given to all three channels, one by one against the references: (n,), 0 for equal ones.

        Raises ValueError for other shapes, and sides below SIDE.
        """
        a, b = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (images, references))
        if a.ndim != 3 or a.shape != b.shape or min(a.shape[1:]) < SIDE:
            raise ValueError(
                f"the images have shapes {tuple(a.shape)} and {tuple(b.shape)}; want (n, h, w) of one shape, sides from {SIDE} on"
            )
        pairs = zip(a.split(BATCH), b.split(BATCH), strict=True)
        return torch.cat([self.distances(one, other) for one, other in pairs]).double().numpy()

    @torch.no_grad()
    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        layers = zip(self.units(a), self.units(b), self.heads, strict=True)
        return torch.stack([torch.einsum("nchw,c->nhw", (x - y) ** 2, w).mean((1, 2)) for x, y, w in layers]).sum(0)

    def units(self, images: Tensor) -> list[Tensor]:
        """The five layers' features (n, c, *) of images (n, h, w), each pixel's of length 1."""
        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x, found = (2 * images[:, None] - 1 - shift) / scale, []
        for layer in self.network:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt())  # as torchmetrics; all-zero features stay zero
        return found
