"""Masks as latents of a frozen autoencoder: what latent diffusion diffuses (Rombach et al. 2022; for masks Lin et al. 2024)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..nn.frozen import Frozen, Part
from ..nn.kl import MULTS, kl_autoencoder, load_autoencoder, reduction
from ..nn.padding import cropped, extended
from ..types import Shape
from .codec import Codec


class Autoencoder(Codec):
    """A binary mask <-> latents of an AutoencoderKL, times `scale`. 2D.

    encode: the mask is copied to the autoencoder's channels, 2 m - 1, its far edges repeated to a multiple of the reduction; then
    scale * the posterior's sample (as published) or its mean. decode: the mean over the channels of clamp((d + 1) / 2, 0, 1),
    cut to the mask. weights: a local folder in diffusers' layout, whose config then gives the sizes, stored once as a frozen part;
    None: weights of the sizes given that are the run's own, as an imported run has them. scale: brings latents to a standard deviation of 1; the published code measures it
    on its first batch (`unit_scale`), 1/7.9 for teeth and 1/8.7 for abdominal organs. It is not the 0.18215 of images.

    The autoencoder is frozen: its weights take no gradient, and it has no dropout.
    """

    bound = None

    def __init__(
        self,
        weights: Part | None = None,
        scale: float = 0.125,
        posterior: Literal["sample", "mean"] = "sample",
        autoencoder_channels: int = 128,
        autoencoder_mults: Sequence[int] = MULTS,
        autoencoder_blocks: int = 2,
        latent_channels: int = 4,
    ) -> None:
        super().__init__()
        if scale <= 0:
            raise InputError(f"--method.codec.scale {scale} must be above 0: it is 1 / the standard deviation of the masks' latents")
        if weights is None:
            own = kl_autoencoder(autoencoder_channels, autoencoder_mults, autoencoder_blocks, latent_channels)
            self.autoencoder: nn.Module = own.requires_grad_(False).eval()
        else:
            self.autoencoder = Frozen(load_autoencoder(weights.source))
        self.channels, self.reduction = self.kl.config.latent_channels, reduction(self.kl.config.block_out_channels)
        self.scale, self.posterior = scale, posterior

    @property
    def kl(self) -> Any:  # noqa: ANN401 - diffusers' types know neither config nor what encode returns
        """The AutoencoderKL."""
        return self.autoencoder.module if isinstance(self.autoencoder, Frozen) else self.autoencoder

    def train(self, mode: bool = True) -> "Autoencoder":
        """The autoencoder is never in training mode."""
        super().train(mode)
        self.kl.eval()
        return self

    def shape(self, data: Shape) -> Shape:
        if len(data) != 4 or data[1] != 1:
            raise InputError(
                f"the codec Autoencoder encodes 2D masks of one channel, got a target of {tuple(data)}; "
                "use slices and a binary mask, or another codec (--method.codec)"
            )
        return (data[0], self.channels, *(-(-size // self.reduction) for size in data[2:]))

    @torch.no_grad()
    def encode(self, target: Tensor) -> Tensor:
        self.shape(tuple(target.shape))
        return self.scale * self.latents(target)

    def latents(self, target: Tensor) -> Tensor:
        """(b, 1, h, w) -> unscaled latents (b, channels, h / f, w / f)."""
        image = extended(2 * target.float() - 1, self.reduction).expand(-1, self.kl.config.in_channels, -1, -1)
        found = self.kl.encode(image).latent_dist
        mean = found.mean.float()
        return mean if self.posterior == "mean" else mean + found.std.float() * rng.normal(tuple(mean.shape), mean.device)

    @torch.no_grad()
    def unit_scale(self, target: Tensor) -> float:
        """The `scale` that gives the latents of these masks a standard deviation of 1, over all their elements together."""
        return 1 / float(self.latents(target).std())

    def decode(self, z: Tensor, shape: Shape) -> Tensor:
        decoded = self.kl.decode(z / self.scale).sample.float()
        return cropped(((decoded + 1) / 2).clamp(0, 1).mean(1, keepdim=True), shape[2:])
