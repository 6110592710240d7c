"""Several images that lie one after the other along the channels, as a batch of their own and back."""

from torch import Tensor


def apart(x: Tensor, channels: int) -> Tensor:
    """(b, n * channels, *s) -> (b * n, channels, *s)"""
    return x.reshape(-1, channels, *x.shape[2:])


def together(x: Tensor, batch: int) -> Tensor:
    """(b * n, channels, *s) -> (b, n * channels, *s)"""
    return x.reshape(batch, -1, *x.shape[2:])
