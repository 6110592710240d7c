"""Feature extractors: what images are compared by. Every number made with one names it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for which such networks want their input standardised


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
    """The pooled output (or the first token) of a vision transformer that transformers opens from a local folder, DINOv2 say."""

    def __init__(self, folder: str | Path, size: int = 224) -> None:
        super().__init__()
        try:
            from transformers import AutoModel
        except ImportError as error:
            raise InputError("a pretrained extractor needs the transformers library: pip install 'somite[transformers]'") from error
        try:
            self.model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"{folder} holds no vision model ({first}); give a folder as transformers saves one, of DINOv2 say") from error
        self.size, self.name = size, f"{type(self.model).__name__} of {Path(folder).name}"
        self.model.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1 or 3, h, w) in [0, 1] -> (b, d)."""
        x = F.interpolate(image.expand(-1, 3, -1, -1), size=(self.size, self.size), mode="bicubic", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        found = self.model(pixel_values=(x.clamp(0, 1) - mean) / std)
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
