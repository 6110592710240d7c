"""A network with a frozen part, for tests: an encoder of fixed weights below a trained head."""

import torch
from safetensors.torch import load_file

from somite.nn.frozen import Frozen, Part
from somite.types import Network, Output


class Backboned(Network):
    def __init__(self, backbone: Part) -> None:
        super().__init__()
        encoder = torch.nn.Conv2d(3, 4, 3, padding=1)
        encoder.load_state_dict(load_file(backbone.source))
        self.backbone = Frozen(encoder)
        self.head = torch.nn.Conv2d(5, 1, 3, padding=1)

    def encode(self, cond):
        return {"features": self.backbone(cond["image"])}

    def forward(self, x, t, cond, state=None):
        return Output(self.head(torch.cat([x, cond["features"]], 1)))
