"""Several classes by a method of binary masks, one pass a class: the way that SDSeg's program began and never finished (its section "multi-class")."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import rng
from ..types import Cond, Network, Shape, Target
from .codec import OneHot
from .methods import Method
from .readout import Readout
from .taught import alike
from .terms import Term


class OneClassAtATime(Method):
    """`method` answers for the class that cond["class"] (b,) names; its network must look at it (`SDSeg(classes=K)`).

    loss: each example is of one class: with equal odds one of those that its mask holds, or any. sample: classes - 1 passes, all of one
    encoding of the image; the background has what they leave, and all are divided by their sum. A single pass for all classes is
    cheaper and trains all at once: the codec's `Palette` or `Layers` (diffusion/pictures.py).

    official: as the program does it. Examples are only of classes that a mask holds, and class 0 is the whole foreground; in sampling
    its probability is negated and all go through a softmax, classes passes.
    """

    # Paper's program: probabilities enter the softmax as decoded; here: clamped to [0, 1] before it, because the codec's are.

    def __init__(self, method: Method, classes: int, official: bool = False) -> None:
        super().__init__()
        self.method, self.classes, self.official = method, classes, official
        self.codec = OneHot(classes)

    @property
    def network(self) -> Network:  # type: ignore[override]
        return self.method.network

    @property
    def terms(self) -> dict[str, Term]:  # type: ignore[override]
        return self.method.terms

    @property
    def readout(self) -> Readout:  # type: ignore[override]
        return self.method.readout

    def begin(self) -> None:
        self.method.begin()

    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        label = self.drawn(target)
        at = label.view(-1, *[1] * (target.ndim - 1))
        chosen = torch.where(at == 0, target != 0, target == at)
        given = {**cond, "class": label}
        if "soft" in cond:
            share = alike(cond["soft"], self.classes).gather(1, at.expand(-1, 1, *target.shape[2:]))
            given["soft"] = torch.where(at == 0, 1 - share, share)
        return self.method.loss(chosen.to(target.dtype), given)

    def drawn(self, target: Target) -> Tensor:
        """(b,) a class for each example."""
        first = 0 if self.official else 1
        flat = target.flatten(1).long()
        present = torch.zeros(len(flat), self.classes, device=flat.device).scatter_(1, flat, 1.0)
        if not self.official:
            present[:, 0] = 0
            anyway = (rng.uniform((len(flat),), flat.device) < 0.5) | ~present.any(1)
            present[anyway, first:] = 1.0
        return (present.cumsum(1) > (rng.uniform((len(flat),), flat.device) * present.sum(1))[:, None]).int().argmax(1)

    @torch.no_grad()
    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        known = self.method.network.encode(cond)
        rows = len(next(iter(cond.values())))
        found = []
        for label in range(0 if self.official else 1, self.classes):
            asked = torch.full((rows,), label, device=next(self.parameters()).device)
            found.append(self.method.sample({**known, "class": asked}, shape, of))
        maps = torch.cat(found, 1)
        if self.official:
            return torch.cat([-maps[:, :1], maps[:, 1:]], 1).softmax(1)
        shares = torch.cat([(1 - maps.sum(1, keepdim=True)).clamp(0, 1), maps], 1)
        return shares / shares.sum(1, keepdim=True)

    @property
    def steps(self) -> int:
        return self.method.steps

    @property
    def placed(self) -> list[int] | None:
        return self.method.placed
