import pytest
import torch
from torch.nn import functional as F

from somite.nn.attention import CBAM, LinearAttention, SoftmaxAttention


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


def asked(attention, x):
    """q, k, v (b, n, c) of a block."""
    return attention.qkv(attention.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)


@torch.no_grad()
def test_softmax_attention_is_torchs_with_one_head():
    block, x = SoftmaxAttention(8, 3), torch.randn(2, 8, 3, 4, 2)
    theirs = torch.nn.MultiheadAttention(8, 1, batch_first=True)
    theirs.in_proj_weight.copy_(block.qkv.weight.flatten(1))
    theirs.in_proj_bias.zero_()
    theirs.out_proj.weight.copy_(block.out.weight.flatten(1))
    theirs.out_proj.bias.copy_(block.out.bias)
    tokens = block.norm(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(block(x), x + theirs(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_linear_attention_is_attention_by_a_matrix_of_tokens_that_is_never_made():
    block, x = LinearAttention(8, 2), torch.randn(2, 8, 5, 4)
    q, k, v = asked(block, x)
    weights = (q.exp() / q.exp().sum(2, keepdim=True) / 8**0.5) @ (k.exp() / k.exp().sum(1, keepdim=True)).transpose(1, 2)
    torch.testing.assert_close(block.mixed(q, k, v), weights @ v, rtol=1e-5, atol=1e-6)
    assert weights.shape == (2, 20, 20)
