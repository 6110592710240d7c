"""Feature extractors: what images are compared by. Every number made with one names it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..files import read_json
from .kl import load_autoencoder, reduction
from .padding import extended

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for which such networks want their input standardised
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Pixels(nn.Module):
    """The image itself at `side` x `side` pixels: needs nothing, and sees colour and layout only."""

    name = "pixels 8 x 8"

    def __init__(self, side: int = 8) -> None:
        super().__init__()
        self.side, self.name = side, f"pixels {side} x {side}"

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, h, w) in [0, 1] -> (b, c side side)."""
        return F.interpolate(image, size=(self.side, self.side), mode="bilinear", align_corners=False, antialias=True).flatten(1)


class Pretrained(nn.Module):
    """The pooled output (or the first token) of a vision model that transformers opens from a local folder, DINOv2 say.

    The folder's preprocessor_config.json, where there is one, says at what size and how standardised the model wants its input; else
    that is 224 pixels and ImageNet's. Images are stretched to that square whole, without a margin cut off: what is at the margin of a
    medical image counts too.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        try:
            from transformers import AutoModel
        except ImportError as error:
            raise InputError("a pretrained extractor needs the transformers library: pip install 'somite[transformers]'") from error
        try:
            self.model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"{folder} holds no vision model ({first}); give a folder as transformers saves one, of DINOv2 say, or a run of somite's"
            ) from error
        self.name = type(self.model).__name__
        self.size, self.mean, self.std = wanted(Path(folder) / "preprocessor_config.json")
        self.model.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1 or 3, h, w) in [0, 1] -> (b, d)."""
        x = F.interpolate(image.expand(-1, 3, -1, -1), size=self.size, mode="bicubic", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        found = self.model(pixel_values=(x.clamp(0, 1) - mean) / std)
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def wanted(path: Path) -> tuple[tuple[int, int], Sequence[float], Sequence[float]]:
    """(height, width), mean and standard deviation of three channels, as transformers writes them down beside a model."""
    told = read_json(path) if path.is_file() else {}
    size = told.get("crop_size") or told.get("size") or 224
    if isinstance(size, dict):
        edge = size.get("shortest_edge", 224)
        size = (size.get("height", edge), size.get("width", edge))
    return size if isinstance(size, tuple) else (size, size), told.get("image_mean", MEAN), told.get("image_std", STD)


class Latents(nn.Module):
    """What a KL autoencoder makes of an image: the means of its latent, pooled to at most `side` x `side` places."""

    def __init__(self, source: str | Path, side: int = 4) -> None:
        super().__init__()
        self.model: Any = load_autoencoder(source).requires_grad_(False).eval()
        self.side, self.name = side, "latents of AutoencoderKL"

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1 or 3, h, w) in [0, 1] -> (b, channels side side)."""
        config = self.model.config
        if config.in_channels == 1 and image.shape[1] == 3:
            image = (image * torch.tensor(LUMINANCE, device=image.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
        x = extended(2 * image.expand(-1, config.in_channels, -1, -1) - 1, reduction(config.block_out_channels))
        mean = self.model.encode(x).latent_dist.mean
        return F.adaptive_avg_pool2d(mean, (min(self.side, mean.shape[2]), min(self.side, mean.shape[3]))).flatten(1)
