"""Images larger than the patch that a network was trained on: overlapping windows, blended."""

from collections.abc import Sequence
from itertools import product
from math import ceil
from typing import Literal

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..nn.padding import cropped, mirrored
from ..types import Cond, Maps, Network, Output, State, Timesteps

Place = tuple[slice, ...]  # of a window: one slice an axis
INHERITS = (
    "this network hands on a state from step to step, and windows that overlap would each have one of their own; "
    "leave somite.predict.tiling.Windows out of the recipe, or take a network without a state"
)


class Windows(Network):
    """nnU-Net's sliding window around a network, for every method: at inference each evaluation is put together from windows of `patch`.

    A window is given its share of x, of the condition's maps and of what the network made of the whole case (`Network.whole`); vectors are
    given as they are. So the noise of a diffusion is drawn once for the volume, and windows that overlap see the same. Value, variance and
    auxiliary maps are means over the windows: for a linear head that is the head of the mean features, for others it is not.
    Maps of other sizes than the window's are left out. In training the network sees what it is given.

    overlap: of neighbouring windows, as a share of the patch. blend: the weight within a window, a Gaussian of 1/8 of the patch, or
    constant. batch: windows at a time; memory is theirs and the volume's logits. Images smaller than the patch are mirrored at their far
    edges to its size, as training crops are.
    """

    def __init__(
        self,
        network: Network,
        patch: Sequence[int],
        batch: int = 4,
        overlap: float = 0.5,
        blend: Literal["gaussian", "constant"] = "gaussian",
    ) -> None:
        super().__init__()
        if not 0 <= overlap < 1:
            raise InputError(
                f"--method.network.overlap {overlap:g}: windows share a part of the patch, at least 0 and below 1; 0.5 is usual"
            )
        if batch < 1 or min(patch, default=0) < 1:
            raise InputError(
                f"--method.network.patch {list(patch)}, batch {batch}: a window has a side of 1 at least, and a batch a window"
            )
        self.network, self.patch, self.batch, self.overlap, self.blend = network, tuple(patch), batch, overlap, blend

    def encode(self, cond: Cond) -> Cond:
        """What windows are cut from: the condition, and what is made once of a whole case. Encoded it is window by window."""
        if self.training:
            return cond
        with torch.no_grad():
            return self.network.whole(cond)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        if self.training:
            return stateless(self.network(x, t, self.network.encode(cond), state))
        self.check(x, cond)
        space, given = x.shape[2:], {name: self.filled(part) for name, part in {**cond, "": x}.items()}
        everywhere = places(given[""].shape[2:], self.patch, self.overlap)
        windows = [(row, place) for row in range(len(x)) for place in everywhere]
        weight, sums = self.weight(x.device), {}
        for at in range(0, len(windows), self.batch):
            some = windows[at : at + self.batch]
            for name, parts in self.seen(some, given, t).items():
                if name not in sums:
                    sums[name] = parts.new_zeros(len(x), *parts.shape[1 : -len(space)], *given[""].shape[2:])
                for (row, place), part in zip(some, parts, strict=True):
                    sums[name][(row, ..., *place)] += part * weight
        shares = weight.new_zeros(given[""].shape[2:])
        for place in everywhere:
            shares[place] += weight
        blended = {name: cropped(total.div_(shares), space) for name, total in sums.items()}
        return Output(blended.pop("value"), var=blended.pop("var", None), aux={name[4:]: part for name, part in blended.items()})

    def seen(self, windows: Sequence[tuple[int, Place]], given: Cond, t: Timesteps) -> dict[str, Tensor]:
        """{"value", "var", "aux.NAME": (windows, ..., *patch)} of what the network says of some windows."""
        rows = [row for row, _ in windows]
        cut = {name: share(part, windows, given[""].ndim) for name, part in given.items()}
        x = cut.pop("")
        with rng.parts(rows):
            out = stateless(self.network(x, t[rows], self.network.encode(cut)))
        found = {"value": out.value, **({} if out.var is None else {"var": out.var})}
        for name, part in found.items():
            if part.shape[2:] != x.shape[2:]:
                raise InputError(
                    f"the network's {name} is {tuple(part.shape)} for windows of {tuple(x.shape)}, and cannot be put together; "
                    "leave somite.predict.tiling.Windows out of the recipe"
                )
        found |= {f"aux.{name}": part for name, part in out.aux.items() if part.shape[-len(self.patch) :] == x.shape[2:]}
        return {name: part.float() for name, part in found.items()}

    def weight(self, device: torch.device) -> Tensor:
        from monai.data.utils import compute_importance_map

        return compute_importance_map(self.patch, mode=self.blend, sigma_scale=0.125, device=device)

    def filled(self, part: Tensor) -> Tensor:
        """A map mirrored at its far edges to the patch's size, where it is smaller; vectors as they are."""
        if part.ndim == 2 + len(self.patch):
            for axis, want in enumerate(self.patch, 2):
                if part.shape[axis] < want:
                    part = mirrored(part, axis, want)
        return part

    def check(self, x: Tensor, cond: Cond) -> None:
        if x.ndim != 2 + len(self.patch):
            raise InputError(
                f"--method.network.patch {list(self.patch)} has {len(self.patch)} axes for targets of {x.ndim - 2}; give one number an axis"
            )
        for name, part in cond.items():
            if part.ndim == x.ndim and part.shape[2:] != x.shape[2:]:
                raise InputError(
                    f"windows are cut from maps as large as the target, but the condition's {name} is {tuple(part.shape)} and the target "
                    f"{tuple(x.shape)} in model space; leave somite.predict.tiling.Windows out of the recipe"
                )


def places(space: Sequence[int], patch: Sequence[int], overlap: float) -> list[Place]:
    """Where the windows of an image lie, the last axis fastest; along each axis the last of them ends where the image does."""
    steps = [max(1, int(side * (1 - overlap))) for side in patch]
    counts = [1 + ceil((size - side) / step) for size, side, step in zip(space, patch, steps, strict=True)]
    starts = [
        [min(i * step, size - side) for i in range(count)] for size, side, step, count in zip(space, patch, steps, counts, strict=True)
    ]
    return [tuple(slice(at, at + side) for at, side in zip(start, patch, strict=True)) for start in product(*starts)]


def share(part: Tensor, windows: Sequence[tuple[int, Place]], ndim: int) -> Tensor:
    """The windows' shares of a map (b, c, *s), or a vector's (b, n) rows."""
    if part.ndim != ndim:
        return part[[row for row, _ in windows]]
    return torch.cat([part[(slice(row, row + 1), slice(None), *place)] for row, place in windows])


def stateless(out: Output) -> Output:
    if out.state is not None:
        raise InputError(INHERITS)
    return out
