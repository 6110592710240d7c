"""Networks whose answers are written in a line: teachers and pupils of which everything is known."""

import torch
from torch import nn

from somite.types import Network, Output

SLOPE = [3.0, -2.0, 1.5]


class Linear(Network):
    """Logits that are linear in the colours of the pixel; `known`: with the slope that tests know, else at zero."""

    def __init__(self, channels: int = 3, maps: int = 1, known: bool = False) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(maps, channels))
        self.bias = nn.Parameter(torch.zeros(maps))
        if known:
            with torch.no_grad():
                self.slope.copy_(torch.tensor(SLOPE[:channels]) * (1 - 2 * torch.arange(maps)[:, None] % 3))

    def forward(self, x, t, cond, state=None):
        assert set(cond) <= {"image"}, "a network sees nothing that a teacher said"
        maps = torch.einsum("kc,bc...->bk...", self.slope, cond["image"])
        return Output(maps + self.bias.view(1, -1, *[1] * (maps.ndim - 2)))


RECIPE = """
task: {class_path: somite.tasks.segmentation.Segmentation, init_args: {members: 1}}
data:
  root: null
  preprocess: {channels: 3, size: null, normalise: {class_path: somite.data.normalise.Unit}}
method:
  class_path: somite.diffusion.methods.FeedForward
  init_args:
    network: {class_path: known.Linear}
    terms: {mask: {class_path: somite.diffusion.terms.CrossEntropy}}
training: {steps: 6, batch: 4, rate: 0.1, warmup: 0, ema: 0.0, validate: 6}
"""
