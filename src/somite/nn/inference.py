"""Networks of diffusers' blocks, computed as suits a CPU that only wants their answer. No module, weight or state dict is changed."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .winograd import fits, same, winograd

Convolutions = Literal["winograd", "direct"]
FEW = 16  # pixels, at which a convolution is reading weights and little else


def inference(convolutions: Convolutions, exact: bool = False) -> AbstractContextManager:
    """Within it a network answers faster on a CPU. Nothing is changed where gradients are asked for, nor by "direct".

    "winograd": large 3x3 convolutions by `nn.winograd`, about 2e-5 of the largest value off. exact: all but these, to rounding.
    """
    if convolutions == "direct" or torch.is_grad_enabled():
        return nullcontext()
    return Inference(exact)


class Inference(TorchFunctionMode):
    """Stands between modules and torch's functions, of which it computes these otherwise on a CPU:

    convolutions: see `conv2d`. A SiLU behind a group normalisation: in place, which in diffusers' blocks is all that its result is
    for (a fresh tensor of 32 MB costs more in page faults than the SiLU itself). A division by 1, as at the end of each block: none.
    """

    def __init__(self, exact: bool) -> None:
        super().__init__()
        self.exact = exact
        self.normed: Callable[[], Any] = lambda: None
        self.ours: dict[Any, Callable[..., Any]] = {
            torch.conv2d: self.conv2d,
            F.group_norm: self.group_norm,
            F.silu: self.silu,
            torch.Tensor.div: self.div,
            torch.Tensor.__truediv__: self.div,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - any function of torch
        return (self.ours.get(func) or func)(*args, **(kwargs or {}))

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any) -> Tensor:  # noqa: ANN401
        """Winograd's way where it `fits`; a matrix product where pixels are few.

        An attention's result lies channels-last, and so does all that it is added to: direct convolution would then rearrange its
        weights at every call, so the image, which is smaller, is rearranged instead.
        """
        if x.device.type != "cpu" or x.ndim != 4:
            return F.conv2d(x, weight, bias, *rest, **named)
        if weight.is_contiguous():
            x = x.contiguous()
        if not self.exact and fits(x, weight, *rest, **named):
            return winograd(x, weight, bias)
        if few(x, weight, *rest, **named):
            return by_product(x, weight, bias)
        return F.conv2d(x, weight, bias, *rest, **named)

    def group_norm(self, *args: Any, **named: Any) -> Tensor:  # noqa: ANN401
        found = F.group_norm(*args, **named)
        self.normed = weakref.ref(found)
        return found

    def silu(self, x: Tensor, inplace: bool = False) -> Tensor:
        return F.silu(x, inplace or x is self.normed())

    def div(self, x: Any, by: Any, **named: Any) -> Any:  # noqa: ANN401
        alike = isinstance(x, Tensor) and x.is_floating_point() and isinstance(by, int | float) and by == 1 and not named
        return x if alike else torch.div(x, by, **named)


def few(x: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> bool:  # noqa: ANN401
    """Whether this is a 3x3 convolution of so few pixels that `by_product` is faster."""
    return x.shape[2] * x.shape[3] <= FEW and same(weight, stride, padding, dilation, groups)


def by_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution, zero-padded by 1, as one matrix product of (b h w, 9 c) neighbourhoods and (9 c, o) weights."""
    b, _, h, w = x.shape
    around = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
    return F.linear(around, weight.flatten(1), bias).reshape(b, h, w, -1).movedim(3, 1).contiguous()
