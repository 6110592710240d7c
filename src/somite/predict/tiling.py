"""Images larger than the patch that a network was trained on: overlapping windows, blended."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..nn.padding import mirrored
from ..types import Cond, Network, Output, State, Timesteps


class Windows(Network):
    """nnU-Net's sliding window around a network: half-overlapping patches, logits blended with a Gaussian of 1/8 of the patch.

    For `FeedForward`, at inference; in training the network sees what it is given. Images smaller than the patch are mirrored
    at their far edges to its size, as training crops are. `batch`: windows at a time.
    """

    def __init__(self, network: Network, patch: Sequence[int], batch: int = 4) -> None:
        super().__init__()
        self.network, self.patch, self.batch = network, list(patch), batch

    def forward(self, x: Tensor, t: Timesteps, cond: Cond, state: State = None) -> Output:
        if self.training:
            return self.network(x, t, self.network.encode(cond), state)
        from monai.inferers.utils import sliding_window_inference

        space, given = x.shape[2:], torch.cat([cond["image"], x], 1)
        for axis, (have, want) in enumerate(zip(space, self.patch, strict=True), 2):
            if have < want:
                given = mirrored(given, axis, want)
        channels = cond["image"].shape[1]

        def logits(window: Tensor) -> Tensor:
            here = self.network.encode({"image": window[:, :channels]})
            return self.network(window[:, channels:], t[:1].expand(len(window)), here).value.float()

        value = sliding_window_inference(given, self.patch, self.batch, logits, overlap=0.5, mode="gaussian", sigma_scale=0.125)
        assert isinstance(value, Tensor)  # MONAI returns what the predictor does
        return Output(value[(..., *(slice(n) for n in space))])
