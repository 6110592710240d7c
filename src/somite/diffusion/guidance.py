"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): a network around a network, asked with and without its labels.

    value = null + guidance (given - null)

Training forgets the labels of a share `drop` of the examples, so that one network learns both answers. Both are affine in each other's
parametrisations, so guiding noise, v or x0 is the same; logits are guided as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..types import Cond, Maps, Network, Output, State, Timesteps

GIVEN, NULL = "given.", "null."


class Guided(Network):
    """`network`, guided at inference; its null condition is zeros in what `labels` names.

    guidance: 1 asks for the given condition alone, at half the cost, 0 for the null condition. drop: the share of forgotten labels in
    training. forget: "example" forgets all labels of an example; # Paper: each "entry" by itself, so that of k labels all are forgotten
    with probability drop^k; here: all, because only the fully unconditional answer is what guidance subtracts.
    shared_draws: both answers are drawn with the same random numbers (masks and seed of a cellular automaton); # Paper: each with its
    own; here: the same, because guidance amplifies what differs. channels: only the first so many are guided, the rest are those of the
    given condition: 3 of 4 repeats DiT's published samples.
    Each answer hands on a state of its own, so the state is a pair; the learned variance and maps are those of the given condition.
    """

    def __init__(
        self,
        network: Network,
        guidance: float = 1.5,
        drop: float = 0.1,
        forget: Literal["example", "entry"] = "example",
        shared_draws: bool = True,
        channels: int | None = None,
        labels: Sequence[str] = ("labels",),
    ) -> None:
        super().__init__()
        if not 0 <= drop < 1:
            raise InputError(f"--method.network.drop {drop}: the share of forgotten labels lies in [0, 1); 0.1 is usual")
        if drop == 0 and guidance != 1:
            raise InputError(
                f"--method.network.guidance {guidance:g} needs a network that was trained without its labels now and then, and here drop is 0; "
                "take --method.network.guidance 1, or train with --method.network.drop 0.1"
            )
        self.network, self.guidance, self.drop, self.forget = network, guidance, drop, forget
        self.shared_draws, self.channels, self.labels = shared_draws, channels, tuple(labels)

    def whole(self, cond: Cond) -> Cond:
        return self.network.whole(cond)

    def encode(self, cond: Cond) -> Cond:
        lacking = [name for name in self.labels if name not in cond]
        if lacking:
            raise InputError(
                f"guidance forgets {lacking[0]}, but the condition has {', '.join(cond) or 'nothing'}; give it, or take the network unguided"
            )
        if self.training:
            return self.network.encode(cond | {name: self.forgotten(cond[name]) for name in self.labels})
        null = cond | {name: torch.zeros_like(cond[name]) for name in self.labels}
        asked = {GIVEN: cond} | ({} if self.guidance == 1 else {NULL: null})
        return {f"{which}{name}": value for which, one in asked.items() for name, value in self.network.encode(one).items()}

    def forgotten(self, labels: Tensor) -> Tensor:
        shape = tuple(labels.shape) if self.forget == "entry" else (len(labels), *[1] * (labels.ndim - 1))
        return labels * (rng.uniform(shape, labels.device) >= self.drop)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        if self.training:
            return self.network(x, t, cond, state)
        mine, other = (None, None) if state is None else state
        before = rng.mark(x.device) if self.shared_draws else None
        given = self.network(x, t, only(cond, GIVEN), mine)
        if self.guidance == 1:
            return replace(given, state=paired(given.state, None))
        if before is not None:
            rng.rewind(before, x.device)
        null = self.network(x, t, only(cond, NULL), other)
        value = null.value + self.guidance * (given.value - null.value)
        if self.channels is not None:
            value = torch.cat([value[:, : self.channels], given.value[:, self.channels :]], 1)
        return replace(given, value=value, state=paired(given.state, null.state))


def only(cond: Cond, which: str) -> Cond:
    return {name.removeprefix(which): value for name, value in cond.items() if name.startswith(which)}


def paired(given: State, null: State) -> State:
    """None where the network hands on nothing."""
    return None if given is None and null is None else (given, null)
