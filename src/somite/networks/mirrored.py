"""Mirroring at inference: nnU-Net's test-time augmentation around any network."""

import itertools

import torch

from ..types import Cond, Maps, Network, Output, State, Timesteps


class Mirrored(Network):
    """The mean of the logits over all 2^d mirrorings of the input, each mirrored back; in training the network alone.

    For `FeedForward`, whose value is logits: 4 evaluations in 2D, 8 in 3D, one after the other.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def whole(self, cond: Cond) -> Cond:
        return self.network.whole(cond)

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        if self.training:
            return self.network(x, t, self.network.encode(cond), state)
        space = range(2, x.ndim)
        total = torch.zeros(())
        sets = [axes for count in range(x.ndim - 1) for axes in itertools.combinations(space, count)]
        for axes in sets:
            # Vectors (labels, embeddings) have no axes to mirror.
            seen = {name: part.flip(axes) if part.ndim == x.ndim else part for name, part in cond.items()}
            value = self.network(x.flip(axes), t, self.network.encode(seen)).value
            total = total.to(value) + value.flip(axes)
        return Output(total / len(sets))
