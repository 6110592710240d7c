"""The updates of a `CellTransformer` without gradient, one image after the other: the same to rounding, several times as fast.

- Which cells act is known before anything is computed, so only they ask, think and change; a cell that did not act keeps its key and
  value, so only those of cells that changed are computed again.
- One image's shifts, scales and gates are multiplied into the weights once a call.
- A cell has 76 numbers and its embedding 768, so keys, values and queries are linear in 76 numbers but for the norm, whose variance is a
  quadratic form in them: with W_c, p_c the embedding and the place less their means over the width,

    W LN(W_e s + p) = (W W_c s + W p_c) / sigma(s),    D sigma^2 = s' W_c' W_c s + 2 s' W_c' p_c + |p_c|^2 + D eps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .cell_transformer import EPS, FINAL_EPS, Call, CellTransformer

CHUNK = 512  # cells at a time: their hidden layer (6 MiB at 3072 units) stays in the cache


@torch.no_grad()
def evolved(rule: CellTransformer, cells: Tensor, fires: list[Tensor], call: Call, arithmetic: torch.dtype) -> Tensor:
    """`cells` (b, n, c) after one update for each of `fires` (b, n); `arithmetic` is that of the matrix products alone."""
    with torch.autocast(cells.device.type, enabled=False):
        out = cells.float().clone()
        for image, now in enumerate(out):
            folded = Folded(rule, call, image, arithmetic)
            changed = torch.arange(len(now), device=now.device)
            for fired in fires:
                folded.learn(now, changed)
                changed = fired[image].nonzero()[:, 0]
                for acting in changed.split(CHUNK):
                    now[:, rule.inputs :].index_add_(
                        0, acting, fired[image][acting, None] * folded.change(now.index_select(0, acting), acting)
                    )
        return out


@dataclass(frozen=True)
class Linear:
    """A map of a normalised embedding as one of a cell's numbers: (weight s + place) / sigma + bias. place: (n, d)."""

    weight: Tensor
    place: Tensor
    bias: Tensor


class Folded:
    """The rule with one image's condition in its weights, and the keys and values of its cells."""

    def __init__(self, rule: CellTransformer, call: Call, image: int, arithmetic: torch.dtype) -> None:
        def row(part: Tensor) -> Tensor:
            return part[image].float()

        self.around, self.heads, self.arithmetic = call.around, rule.heads, arithmetic
        self.embed = rule.cell_to_embedding.weight.float()
        place = call.place[image if len(call.place) > 1 else 0]
        self.place = (place + rule.cell_to_embedding.bias).float()  # (n, width)
        width = self.place.shape[1]
        centred, offset = self.embed - self.embed.mean(0), self.place - self.place.mean(1, keepdim=True)
        self.square, self.cross = centred.T @ centred, 2 * offset @ centred
        self.constant = (offset**2).sum(1) + width * EPS
        scale, shift = folding(rule.norm1.weight, rule.norm1.bias, row(call.scale_a), row(call.shift_a))
        qkv = rule.qkv.weight.float()
        weight, bias = qkv * scale, qkv @ shift
        ask, keep = slice(width), slice(width, None)
        self.ask, self.keep = (Linear(weight[part] @ centred, F.linear(offset, weight[part]), bias[part]) for part in (ask, keep))
        gate = row(call.gate_a)
        self.proj = self.cast(gate[:, None] * rule.proj.weight, gate * rule.proj.bias)
        scale, shift = folding(rule.norm2.weight, rule.norm2.bias, row(call.scale_m), row(call.shift_m))
        self.fc1 = self.cast(rule.fc1.weight * scale, rule.fc1.bias + rule.fc1.weight @ shift)
        gate = row(call.gate_m)
        self.fc2 = self.cast(gate[:, None] * rule.fc2.weight, gate * rule.fc2.bias)
        final, shift = rule.final_layer.linear, row(call.shift_f)
        self.final = self.cast(final.weight * (1 + row(call.scale_f)), final.bias + final.weight @ shift)
        self.inverse = torch.empty(len(self.place), 1, device=qkv.device)  # 1 / sigma of each cell
        self.keys, self.values = torch.empty(2, *self.place.shape, device=qkv.device)
        self.width = width

    def cast(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight.to(self.arithmetic), bias.to(self.arithmetic)

    def learn(self, cells: Tensor, changed: Tensor) -> None:
        """The keys and values of cells that changed."""
        for some in changed.split(CHUNK):
            s = cells.index_select(0, some)
            variance = ((s @ self.square + self.cross.index_select(0, some)) * s).sum(1, keepdim=True) + self.constant[some, None]
            self.inverse.index_copy_(0, some, (variance / self.width).rsqrt())
            k, v = self.seen(s, some, self.keep).chunk(2, 1)
            self.keys.index_copy_(0, some, k)
            self.values.index_copy_(0, some, v)

    def seen(self, s: Tensor, cells: Tensor, by: "Linear") -> Tensor:
        """Queries, or keys and values, of cells s (m, c)."""
        inner = F.linear(s.to(self.arithmetic), by.weight.to(self.arithmetic)).float()
        return torch.addcmul(by.bias, inner.add_(by.place.index_select(0, cells)), self.inverse.index_select(0, cells))

    def change(self, s: Tensor, acting: Tensor) -> Tensor:
        """(m, c) -> (m, changing)"""
        q = self.seen(s, acting, self.ask)
        looked = self.around.attention(q, self.keys, self.values, acting, len(self.place), self.heads)
        z = F.linear(s, self.embed).add_(self.place.index_select(0, acting)).add_(self.linear(looked, self.proj))
        hidden = F.gelu(F.linear(F.layer_norm(z, (self.width,), eps=EPS).to(self.arithmetic), *self.fc1))
        z.add_(F.linear(hidden, *self.fc2))
        return self.linear(F.layer_norm(z, (self.width,), eps=FINAL_EPS), self.final)

    def linear(self, x: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
        return F.linear(x.to(self.arithmetic), *layer).float()


def folding(weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """A norm's own affine map and its modulation as one: (x weight + bias) (1 + scale) + shift."""
    return weight * (1 + scale), bias * (1 + scale) + shift
