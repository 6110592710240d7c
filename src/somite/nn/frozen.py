"""What a recipe takes from elsewhere: parts that training does not change (a published autoencoder), and weights that it starts from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Part:
    """Where a frozen part comes from, as a recipe names it. source: a file, a folder (of a run, or in diffusers' layout) or a hub id.
    digest: SHA-256 of its contents, which training fills in. Constructors get the source as a path that is there.
    """

    source: str
    digest: str | None = None


@dataclass(frozen=True)
class Start:
    """Where weights come from that training begins with and then changes. weights: a file, a folder or a hub id. digest: SHA-256 of its
    contents, which training fills in. Constructors get it as a path that is there; in a run that is opened they get None, because
    its own weights are in the run, so that nothing else has to be there.
    """

    weights: str
    digest: str | None = None


class Frozen(nn.Module):
    """A module that is used and never trained. It is in no state dict, average, checkpoint or optimiser, and copies share it; what it
    holds is stored once, apart (`somite.store`). It follows its parent to a device, and stays in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (module.requires_grad_(False).eval(),)  # a tuple, into which nn.Module does not look

    @property
    def module(self) -> nn.Module:
        return self._held[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the module's own
        return self.module(*args, **kwargs)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Frozen":
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict) -> "Frozen":
        return self
