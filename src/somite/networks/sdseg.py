"""SDSeg (Lin et al. 2024, arXiv 2406.18361): masks diffused in a latent space, beside the image's latents from a trained encoder.

c = E(I), E a copy of the autoencoder's encoder with a 1x1 convolution at its end; eps = U([z_t, c], t). E depends on neither z_t
nor t, so it is `encode`. c is neither sampled nor scaled. Masks become latents in the codec `Autoencoder` (diffusion/latent.py).

    at 256 px: U-Net 294,973,828 weights, vision encoder 34,163,628 (the defaults)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.adm import adm_unet
from ..nn.frozen import Start
from ..nn.inference import Convolutions, inference
from ..nn.kl import MULTS, kl_encoder, load_autoencoder, reduction
from ..nn.padding import cropped, extended
from ..nn.unet_start import start_unet
from ..types import Cond, Network, Output, State, Timesteps

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Trained = Literal["full", "partial", "frozen"]


class VisionEncoder(nn.Module):
    """Image (b, image_channels, h, w) -> latents (b, latent_channels, ceil(h / f), ceil(w / f)), f the encoder's reduction.

    training: "full" as published; "partial" trains its last level, middle and output; "frozen" only the last 1x1 convolution,
    which no autoencoder has and which starts at random. Dropout acts in what is trained.
    """

    def __init__(
        self,
        channels: int,
        mults: Sequence[int],
        blocks: int,
        latent_channels: int,
        image_channels: int,
        dropout: float,
        training: Trained,
    ) -> None:
        super().__init__()
        self.image_channels, self.reduction = image_channels, reduction(mults)
        self.encoder: Any = kl_encoder(channels, mults, blocks, latent_channels, image_channels, dropout)
        self.out = nn.Conv2d(2 * latent_channels, latent_channels, 1)
        frozen = {"full": [], "partial": [self.encoder.conv_in, *self.encoder.down_blocks[:-1]], "frozen": [self.encoder]}
        for part in frozen[training]:
            part.requires_grad_(False)
            for module in part.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[1] not in (1, self.image_channels):
            raise InputError(
                f"this SDSeg takes 2D images of {self.image_channels} channels (or grey ones), got {tuple(image.shape)}; "
                "set --data.preprocess.channels"
            )
        image = image.expand(-1, self.image_channels, -1, -1)  # grey ones are copied, as published
        return self.out(self.encoder(extended(image, self.reduction)))


class SDSeg(Network):
    """x (b, latent_channels, h, w) are latents of the mask; cond["image"] (b, c, f h, f w) in [-1, 1] as published.

    encoder_*: the vision encoder's size, the autoencoder's own where it is to start from one. encoder_training: see `VisionEncoder`.
    encoder_start, unet_start: what training begins with: an autoencoder (`nn.kl.load_autoencoder`), whose encoder becomes the vision
    encoder, and a latent diffusion model's U-Net (`nn.unet_start`), as published lsun_churches256, widened by zeros for c.

    fusion: "concat" puts c beside z_t. "cross-attention" leaves the U-Net z_t alone and gives its every attention the places of c
    as further keys and values, in the same U-Net otherwise. These have no order: position reaches them through padding alone.

    Several classes in one pass: the codec's picture is a `Palette`, or `Layers` with mask_latents: K - 1. classes: where it is asked for
    one class at a time instead, cond["class"] (b,) (`OneClassAtATime`).

    convolutions: of inference on a CPU. "winograd" computes the vision encoder's large ones with fewer multiplications
    (nn/winograd.py); "direct" as torch does by itself. Training is direct.
    """

    # Paper: concatenation; here: cross-attention too, because whether concatenation is what helps is worth asking.

    def __init__(
        self,
        channels: int = 192,
        mults: Sequence[int] = (1, 2, 2, 4, 4),
        res_blocks: int = 2,
        attention: Sequence[int] = (1, 2, 4, 8),
        heads: int = 8,
        dropout: float = 0.2,
        encoder_channels: int = 128,
        encoder_mults: Sequence[int] = MULTS,
        encoder_blocks: int = 2,
        encoder_training: Trained = "full",
        encoder_start: Start | None = None,
        unet_start: Start | None = None,
        fusion: Literal["concat", "cross-attention"] = "concat",
        latent_channels: int = 4,
        image_channels: int = 3,
        mask_latents: int = 1,
        classes: int = 0,
        convolutions: Convolutions = "winograd",
    ) -> None:
        super().__init__()
        concat, masks = fusion == "concat", mask_latents * latent_channels
        wide, context = (masks + latent_channels, None) if concat else (masks, latent_channels)
        self.unet = adm_unet(wide, masks, channels, mults, res_blocks, attention, heads, dropout, context, classes)
        self.vision = VisionEncoder(
            encoder_channels, encoder_mults, encoder_blocks, latent_channels, image_channels, dropout, encoder_training
        )
        self.concat, self.factor, self.classes, self.masks = concat, 2 ** (len(mults) - 1), classes, masks
        self.convolutions: Convolutions = convolutions
        if encoder_start is not None:
            self.start_from(load_autoencoder(encoder_start.weights))
        if unet_start is not None:
            if not concat:
                raise InputError(f"--method.network.unet_start is for --method.network.fusion concat, not {fusion}; leave one of them out")
            start_unet(self.unet, unet_start.weights, heads)

    def start_from(self, autoencoder: "AutoencoderKL") -> None:
        """Give the vision encoder the weights of an AutoencoderKL's encoder. Raises InputError where that is of another size."""
        try:
            self.vision.encoder.load_state_dict(autoencoder.encoder.state_dict())
        except RuntimeError as error:
            sizes: Any = autoencoder.config
            raise InputError(
                f"the autoencoder's encoder has widths {list(sizes.block_out_channels)}, {sizes.layers_per_block} blocks a level, "
                f"{sizes.in_channels} image and {sizes.latent_channels} latent channels, the vision encoder others; "
                "make --method.network.encoder_channels, encoder_mults, encoder_blocks, image_channels and latent_channels the same"
            ) from error

    def encode(self, cond: Cond) -> Cond:
        return cond if "features" in cond else {**cond, "features": self.features(cond["image"])}

    def features(self, image: Tensor) -> Tensor:
        with inference(self.convolutions):
            return self.vision(image)

    def forward(self, x: Tensor, t: Timesteps, cond: Cond, state: State = None) -> Output:
        if x.shape[1] != self.masks:
            raise InputError(
                f"the codec's latents have {x.shape[1]} channels but this SDSeg is for {self.masks}; set --method.network.latent_channels to those "
                "of the autoencoder (and mask_latents to classes - 1 for the picture Layers)"
            )
        c = cond["features"] if "features" in cond else self.features(cond["image"])
        if c.shape[2:] != x.shape[2:]:
            raise InputError(
                f"the mask's latents are {tuple(x.shape[2:])} but the image's {tuple(c.shape[2:])}; "
                f"the codec must reduce by {self.vision.reduction} as the vision encoder does (--method.network.encoder_mults)"
            )
        labels = {"class_labels": cond["class"]} if self.classes else {}
        # At 32 x 32 the U-Net has little to gain by Winograd's way, and its error would grow by sigma / alpha, 38.7 at T-1.
        with inference(self.convolutions, exact=True):
            if self.concat:
                value = self.unet(extended(torch.cat([x, c], 1), self.factor), t, **labels).sample
            else:
                value = self.unet(extended(x, self.factor), t, c.flatten(2).transpose(1, 2), **labels).sample
        return Output(cropped(value, x.shape[2:]))
