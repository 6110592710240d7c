"""Networks that are denoisers or not, as an option says: with `noised` x_t joins the image, and t scales and shifts what each level makes.

A constant channel of t would say nothing where a norm follows, because it takes every constant away: FiLM (Perez et al. 2018) comes
after the norm, by maps that begin at zero.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..types import Network, Timesteps
from .conditioning import silent, sinusoid

FREQUENCIES, EMBEDDED = 16, 8  # of a timestep: as few as telling noise levels apart takes


class Noisy(Network):
    """noised: whether x_t and t are seen, as diffusion needs; without it they are ignored, as feed-forward training has none."""

    def __init__(self, image_channels: int, mask_channels: int, noised: bool, dims: Literal[2, 3]) -> None:
        super().__init__()
        self.image_channels, self.mask_channels, self.noised, self.dims = image_channels, mask_channels, noised, dims

    @property
    def channels_given(self) -> int:
        return self.image_channels + (self.mask_channels if self.noised else 0)

    def listen(self, widths: Sequence[int]) -> None:
        """Make what t does to levels of these widths."""
        if self.noised:
            self.time = nn.Linear(FREQUENCIES, EMBEDDED)
            self.films = nn.ModuleList(nn.Linear(EMBEDDED, 2 * width) for width in widths)
            silent(*self.films)  # type: ignore[arg-type]

    def told(self, t: Timesteps) -> list[Tensor] | None:
        """Of each level scale and shift side by side, (b, 2 width)."""
        if not self.noised:
            return None
        known = nn.functional.silu(self.time(sinusoid(t, FREQUENCIES)))
        return [film(known) for film in self.films]

    def given(self, image: Tensor, x: Tensor) -> Tensor:
        """Image (b, c, *s) and x (b, k, *s) as the network sees them, (b, channels_given, *s). Raises InputError for other channels or axes."""
        if image.shape[1] != self.image_channels or image.ndim != 2 + self.dims or (self.noised and x.shape[1] != self.mask_channels):
            raise InputError(
                f"this network takes {self.image_channels} image and {self.mask_channels} mask channels in {self.dims}D, got "
                f"{tuple(image.shape)} and {tuple(x.shape)}; set --method.network.image_channels, mask_channels or dims"
            )
        return torch.cat([image, x], 1) if self.noised else image
