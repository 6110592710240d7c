"""SegFormer (Xie et al. 2021, arXiv 2105.15203), from the transformers library, as a feed-forward baseline."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..types import Cond, Maps, Network, Output, State, Timesteps

DEPTHS = {"b0": (2, 2, 2, 2), "b1": (2, 2, 2, 2), "b2": (3, 4, 6, 3), "b3": (3, 4, 18, 3), "b4": (3, 8, 27, 3), "b5": (3, 6, 40, 3)}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SegFormer(Network):
    """Sees the image alone, in [0, 1]; x and t are ignored, so it belongs into `FeedForward`. 2D.

    variant: b0 (3.7 M weights) to b5. weights: a local folder as `save_pretrained` writes it (the published encoders are
    nvidia/mit-b0 ...); without it training starts from random weights, which is an unfairly low baseline on small data.
    Logits are predicted at a quarter of the size and enlarged.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        variant: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b0",
        weights: str | None = None,
        image_channels: int = 3,
        mask_channels: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        try:
            from transformers import SegformerConfig, SegformerForSemanticSegmentation
        except ImportError as error:
            raise InputError("SegFormer needs the transformers library: pip install 'somite[transformers]'") from error
        wide = variant != "b0"
        config = SegformerConfig(
            num_channels=image_channels,
            depths=list(DEPTHS[variant]),
            hidden_sizes=[64, 128, 320, 512] if wide else [32, 64, 160, 256],
            decoder_hidden_size=256 if variant in ("b0", "b1") else 768,
            classifier_dropout_prob=dropout,
        )
        config.num_labels = mask_channels
        if weights is None:
            self.segformer = SegformerForSemanticSegmentation(config)
        elif not Path(weights).is_dir():
            raise InputError(f"--method.network.weights {weights}: no such folder; download nvidia/mit-{variant} there, or leave it out")
        else:
            self.segformer = SegformerForSemanticSegmentation.from_pretrained(
                weights, config=config, local_files_only=True, ignore_mismatched_sizes=True
            )
        self.image_channels = image_channels
        colour = image_channels == 3
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN if colour else [0.5] * image_channels), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD if colour else [0.25] * image_channels), persistent=False)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        image = cond["image"]
        if image.shape[1] != self.image_channels or image.ndim != 4:
            raise InputError(
                f"this SegFormer takes 2D images of {self.image_channels} channels, got {tuple(image.shape)}; set --data.preprocess.channels"
            )
        normal = (image - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        logits = self.segformer(pixel_values=normal).logits
        return Output(F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False))
