import pytest
import torch
from torch.nn import functional as F

from somite.nn.attention import CBAM


def test_678_weights():
    """Fact A1: 580 for the channels, 98 for the places."""
    block = CBAM(64)
    assert (sum(p.numel() for p in block.channel.parameters()), block.place.weight.numel()) == (580, 98)


@pytest.mark.parametrize("space", [(9, 7), (5, 6, 4)])
def test_written_out(space):
    dims = len(space)
    block, x = CBAM(8, reduction=4, dims=dims), torch.randn(2, 8, *space)
    first, _, second = block.channel

    def mlp(v):
        return torch.relu(v @ first.weight.T + first.bias) @ second.weight.T + second.bias

    axes = list(range(2, 2 + dims))
    gate = torch.sigmoid(mlp(x.amax(axes)) + mlp(x.mean(axes)))
    y = x * gate.view(2, 8, *[1] * dims)
    pooled = torch.stack([y.max(1).values, y.mean(1)], 1)
    place = torch.sigmoid({2: F.conv2d, 3: F.conv3d}[dims](pooled, block.place.weight, padding=3))
    torch.testing.assert_close(block(x), y * place)
