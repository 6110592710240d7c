"""A cellular automaton whose rule is one transformer block (GeCA, arXiv 2407.03018).

    z  = W_e s + place                               place: the embedding of position, and of the image where there is one
    z += gate_a W_o attention(LN(z) (1 + scale_a) + shift_a)      over the neighbourhood
    z += gate_m MLP(LN(z) (1 + scale_m) + shift_m)
    s += fired . [0 | W_f (LN(z) (1 + scale_f) + shift_f) + b_f]  what is given (x_t) never changes

Shifts, scales and gates are functions of the timestep and the labels, the same for all updates of a call, and computed once. Two forms
of the same update, equal to rounding: here the batch as a whole, with gradient, where only cells that act look, think and change;
and `cell_inference`, which multiplies one image's condition into the weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .conditioning import FinalLayer, modulated, plain, silent
from .neighbours import Neighbourhood

EPS, FINAL_EPS = 1e-5, 1e-6  # of the norms inside the block, and of the last one


@dataclass(frozen=True)
class Call:
    """What the updates of one call share. place: (1 or b, n, width). Each modulation: (b, width)."""

    place: Tensor
    around: Neighbourhood
    shift_a: Tensor
    scale_a: Tensor
    gate_a: Tensor
    shift_m: Tensor
    scale_m: Tensor
    gate_m: Tensor
    shift_f: Tensor
    scale_f: Tensor


class CellTransformer(nn.Module):
    """Cells of `inputs` given channels and `changing` others, embedded in `width`; `mlp` units in the perceptron."""

    def __init__(self, inputs: int, changing: int, width: int, heads: int, mlp: int, checkpointing: bool) -> None:
        super().__init__()
        self.inputs, self.heads, self.checkpointing = inputs, heads, checkpointing
        self.cell_to_embedding = nn.Linear(inputs + changing, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.final_layer = FinalLayer(width, changing, FINAL_EPS)
        self.apply(plain)
        silent(self.adaLN_modulation[1], self.final_layer.adaLN_modulation[1], self.final_layer.linear)  # type: ignore[arg-type]

    def call(self, c: Tensor, place: Tensor, around: Neighbourhood) -> Call:
        """`c` (b, width): the embedding of timestep and labels."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, 1)
        return Call(place, around, shift_a, scale_a, gate_a, shift_m, scale_m, gate_m, *self.final_layer.modulation(c))

    def updated(self, cells: Tensor, fired: Tensor, call: Call) -> Tensor:
        """(b, n, inputs + changing) after one update; `fired` (b, n) is boolean or the share of its change that a cell makes."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self.update, cells, fired, call, use_reentrant=False)  # type: ignore[return-value]
        return self.update(cells, fired, call)

    def update(self, cells: Tensor, fired: Tensor, call: Call) -> Tensor:
        n = cells.shape[1]
        acting = fired.flatten().nonzero()[:, 0]
        image = acting // n
        z = self.cell_to_embedding(cells) + call.place
        y = modulated(self.norm1(z), call.shift_a[:, None], call.scale_a[:, None]).flatten(0, 1)
        z = z.flatten(0, 1).index_select(0, acting)
        ask, keys = self.qkv.weight.split([z.shape[1], 2 * z.shape[1]])
        k, v = F.linear(y, keys).chunk(2, 1)
        q = F.linear(y.index_select(0, acting), ask)
        z = z + call.gate_a[image] * self.proj(call.around.attention(q, k, v, acting, n, self.heads))
        y = modulated(self.norm2(z), call.shift_m[image], call.scale_m[image])
        z = z + call.gate_m[image] * self.fc2(F.gelu(self.fc1(y)))
        change = fired.flatten()[acting, None] * self.final_layer(z, call.shift_f[image], call.scale_f[image])
        change = F.pad(change.to(cells.dtype), (self.inputs, 0))
        return cells.flatten(0, 1).index_add(0, acting, change).view_as(cells)
