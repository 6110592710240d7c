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


@torch.no_grad()
def test_softmax_attention_is_torchs():
    block, x = SoftmaxAttention(8, 3), torch.randn(2, 8, 3, 4, 2)
    theirs = torch.nn.MultiheadAttention(8, 4, batch_first=True)
    theirs.in_proj_weight.copy_(block.qkv.weight.flatten(1))
    theirs.in_proj_bias.zero_()
    theirs.out_proj.weight.copy_(block.out.weight.flatten(1))
    theirs.out_proj.bias.copy_(block.out.bias)
    tokens = block.norm(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(block(x), x + theirs(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_linear_attention_is_attention_by_a_matrix_of_tokens_that_is_never_made():
    block, x = LinearAttention(8, 2), torch.randn(2, 8, 5, 4)
    q, k, v = block.qkv(block.norm(x)).flatten(2).chunk(3, 1)  # (b, c, n), two channels a head
    mixed = []
    for head in range(4):
        qh, kh, vh = (part[:, 2 * head : 2 * head + 2] for part in (q, k, v))
        weights = (qh.exp() / qh.exp().sum(1, keepdim=True) / 2**0.5).transpose(1, 2) @ (kh.exp() / kh.exp().sum(2, keepdim=True))
        assert weights.shape == (2, 20, 20)
        mixed.append(vh @ weights.transpose(1, 2))
    wanted = x + block.out(torch.cat(mixed, 1).reshape(x.shape))
    torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
