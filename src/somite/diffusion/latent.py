"""Targets as latents of a frozen autoencoder: what latent diffusion diffuses (Rombach et al. 2022; for masks Lin et al. 2024)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..nn.frozen import Frozen, Part
from ..nn.inference import Convolutions, inference
from ..nn.kl import MULTS, kl_autoencoder, load_autoencoder, reduction
from ..nn.padding import cropped, extended
from ..nn.stacked import apart, together
from ..nn.tiny import decoder_of
from ..types import Shape
from .codec import Codec
from .pictures import Grey


class Autoencoder(Codec):
    """A target's picture <-> latents of an AutoencoderKL, times `scale`. 2D.

    picture: how a target becomes an image in [-1, 1] and back: `Grey` for binary masks (the default, as published), `Palette` or
    `Layers` for classes (diffusion/pictures.py), `Signed` of 3 channels for photographs. A picture of n times the autoencoder's
    channels is encoded as n images, whose latents stand one after the other.

    encode: the picture, its far edges repeated to a multiple of the reduction, then scale * the posterior's sample (as published) or
    its mean. decode: cut to the target, then the picture's own. weights: a diffusers folder, a hub id, a file or a run of somite's
    own (`nn.kl.load_autoencoder`), whose config then gives the sizes, stored once as a frozen part; None: weights of the sizes
    given that are the run's own, as an imported run has them.

    scale: brings latents to a standard deviation of 1. None measures it on the first training batch, as published, and keeps it
    beside the weights. The published code's are 1/7.9 for teeth and 1/8.7 for abdominal organs, not the 0.18215 of photographs.

    decoder: a run of `autoencoder/tiny`, which decodes in place of the autoencoder's own: ten times faster at published size.

    convolutions: of decoding on a CPU. "winograd" computes the large ones with fewer multiplications (nn/winograd.py: within 1e-4 of
    the largest value); "direct" as torch does by itself. Encoding, which makes what training learns, is direct.

    The autoencoder is frozen: its weights take no gradient, and it has no dropout.
    """

    bound = None
    scale: Tensor

    def __init__(
        self,
        weights: Part | None = None,
        scale: float | None = None,
        posterior: Literal["sample", "mean"] = "sample",
        picture: Codec | None = None,
        decoder: Part | None = None,
        autoencoder_channels: int = 128,
        autoencoder_mults: Sequence[int] = MULTS,
        autoencoder_blocks: int = 2,
        latent_channels: int = 4,
        image_channels: int = 3,
        convolutions: Convolutions = "winograd",
    ) -> None:
        super().__init__()
        if scale is not None and scale <= 0:
            raise InputError(f"--method.codec.scale {scale} must be above 0: it is 1 / the standard deviation of the latents")
        if weights is None:
            own = kl_autoencoder(autoencoder_channels, autoencoder_mults, autoencoder_blocks, latent_channels, image_channels)
            self.autoencoder: nn.Module = own.requires_grad_(False).eval()
        else:
            self.autoencoder = Frozen(load_autoencoder(weights.source))
        self.random = weights is None
        self.decoder = None if decoder is None else Frozen(decoder_of(decoder.source, self.kl))
        self.picture, self.posterior = picture or Grey(), posterior
        self.convolutions: Convolutions = convolutions
        sizes = self.kl.config
        count, left = divmod(self.picture.channels, sizes.in_channels)
        if left or not count:
            raise InputError(
                f"the picture has {self.picture.channels} channels, which are no images of the {sizes.in_channels} that the autoencoder "
                "takes; set --method.codec.picture to one that fits"
            )
        self.channels, self.maps, self.reduction = count * sizes.latent_channels, self.picture.maps, reduction(sizes.block_out_channels)
        self.register_buffer("scale", torch.tensor(math.nan if scale is None else scale), persistent=scale is None)

    @property
    def kl(self) -> Any:  # noqa: ANN401 - diffusers' types know neither config nor what encode returns
        """The AutoencoderKL."""
        return self.autoencoder.module if isinstance(self.autoencoder, Frozen) else self.autoencoder

    def train(self, mode: bool = True) -> "Autoencoder":
        """The autoencoder is never in training mode."""
        super().train(mode)
        self.kl.eval()
        return self

    def begin(self) -> None:
        if self.random:
            raise InputError(
                "the codec's autoencoder has random weights, which make no latents to learn: give --method.codec.weights.source FOLDER, FILE "
                "or RUN (somite train autoencoder/images or autoencoder/masks makes one from your own data; docs/how-to/latent.md)"
            )

    def shape(self, data: Shape) -> Shape:
        if len(data) != 4:
            raise InputError(
                f"the codec Autoencoder encodes 2D images and slices, got a target of {tuple(data)}; "
                "use --data.preprocess.dims 2, or another codec (--method.codec)"
            )
        drawn = self.picture.shape(data)
        return (data[0], self.channels, *(-(-size // self.reduction) for size in drawn[2:]))

    def probabilities(self, target: Tensor) -> Tensor:
        return self.picture.probabilities(target)

    @torch.no_grad()
    def encode(self, target: Tensor) -> Tensor:
        self.shape(tuple(target.shape))
        z = self.latents(self.picture.encode(target))
        if self.scale.isnan():
            self.measure(z)
        return self.scale * z

    @torch.no_grad()
    def place(self, soft: Tensor) -> Tensor:
        """Of the picture that they make; a mask's latents measure the scale first."""
        return self.scale * self.latents(self.picture.place(soft))

    def latents(self, picture: Tensor) -> Tensor:
        """(b, c, h, w), as `picture` encodes a target -> unscaled latents (b, channels, h / f, w / f)."""
        pictures = extended(picture, self.reduction)
        found = self.kl.encode(apart(pictures, self.kl.config.in_channels)).latent_dist
        mean = together(found.mean.float(), len(picture))
        if self.posterior == "mean":
            return mean
        return mean + together(found.std.float(), len(picture)) * rng.normal(tuple(mean.shape), mean.device)

    def measure(self, z: Tensor) -> None:
        """The scale that gives these latents a standard deviation of 1, over all their elements together."""
        if not self.training:
            raise InputError("the scale of this codec's latents was never measured: train the run, or give --method.codec.scale")
        self.scale.copy_(1 / z.std())

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        latents = apart(z / self.scale, self.kl.config.latent_channels)
        with inference(self.convolutions):
            decoded = self.kl.decode(latents).sample if self.decoder is None else self.decoder(latents)
        pictures = together(decoded.float(), len(z))
        return self.picture.decode(cropped(pictures, shape[2:]), shape)
