"""Autoencoders as networks: x is a picture, and so is the answer. They are what latent diffusion stands on (Rombach et al. 2022).

KLAutoencoder   the KL autoencoder, trained whole
TinyDecoder     a small decoder of a frozen autoencoder's latents, trained to do what that one's own does
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..nn.frozen import Frozen, Part
from ..nn.kl import MULTS, kl_autoencoder, load_autoencoder, reduction
from ..nn.padding import cropped, extended
from ..nn.stacked import apart, together
from ..nn.tiny import Tiny, sizes
from ..types import Cond, Network, Output, State, Timesteps


class KLAutoencoder(Network):
    """x (b, n * image_channels, h, w), n pictures in [-1, 1], of any size -> the same rebuilt; t and cond are not looked at.

    In training the posterior is sampled, in evaluation its mean is decoded. aux: its "mean" and "log_var", of which the term
    `Divergence` is. The defaults are kl-f8's (83,653,863 weights); fewer channels for masks and small images.
    """

    def __init__(
        self,
        channels: int = 128,
        mults: Sequence[int] = MULTS,
        blocks: int = 2,
        latent_channels: int = 4,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.autoencoder: Any = kl_autoencoder(channels, mults, blocks, latent_channels, image_channels)
        self.image_channels, self.reduction = image_channels, reduction(mults)

    def forward(self, x: Tensor, t: Timesteps, cond: Cond, state: State = None) -> Output:
        found = self.autoencoder.encode(apart(extended(x, self.reduction), self.image_channels)).latent_dist
        z = found.mean
        if self.training:
            z = z + found.std * rng.normal(tuple(together(z, len(x)).shape), z.device).view_as(z)
        value = together(self.autoencoder.decode(z).sample, len(x))
        latents = {"mean": together(found.mean, len(x)), "log_var": together(found.logvar, len(x))}
        return Output(cropped(value, x.shape[2:]), aux=latents)


class TinyDecoder(Network):
    """x as of KLAutoencoder, encoded by a frozen teacher and decoded by `nn.tiny.Tiny`.

    teacher: the autoencoder whose latents are to be decoded. blur: in training, noise of this share of the latents' standard deviation
    is added, because what a diffusion model predicts is never quite the latent of a mask. aux["teacher"]: the teacher's own decoding
    of the same latents, in training, which the term `Distilled` compares with.
    """

    def __init__(self, teacher: Part | None = None, width: int = 64, blocks: int = 3, blur: float = 0.1) -> None:
        super().__init__()
        if teacher is None:
            raise InputError("a tiny decoder learns from an autoencoder: name it with --method.network.teacher.source FOLDER, FILE or RUN")
        kl: Any = load_autoencoder(teacher.source)
        self.teacher, self.blur = Frozen(kl), blur
        config = kl.config
        self.tiny = Tiny(**sizes(kl), width=width, blocks=blocks)
        self.image_channels, self.reduction = config.in_channels, reduction(config.block_out_channels)

    def forward(self, x: Tensor, t: Timesteps, cond: Cond, state: State = None) -> Output:
        teacher: Any = self.teacher.module
        aux = {}
        with torch.no_grad():
            z = teacher.encode(apart(extended(x, self.reduction), self.image_channels)).latent_dist.mean
            if self.training:
                z = z + self.blur * z.std() * rng.normal(tuple(together(z, len(x)).shape), z.device).view_as(z)
                aux["teacher"] = cropped(together(teacher.decode(z).sample, len(x)), x.shape[2:])
        return Output(cropped(together(self.tiny(z), len(x)), x.shape[2:]), aux=aux)
