"""Attention of some cells of a grid to their neighbourhood, or to all cells: what a cell that does not act need not look at, costs nothing.

Cells are rows: row i of a batch is cell i % n of image i // n, n cells an image in row-major order.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64  # cells at a time where no gradient is asked for: their neighbours' keys (1.7 MiB at width 768) hardly leave the cache
Border = Literal["masked", "null"]


@dataclass(frozen=True)
class Neighbourhood:
    """near: (n, k), the cells that cell i sees, itself among them; beyond the edge stands some cell, and `there` is False. None: all.
    null: what lies beyond the edge is a key of logit 0 and value 0, as zero padding makes it, and takes its share of the attention;
    otherwise it is not there.
    """

    near: Tensor | None
    there: Tensor | None
    null: bool

    def attention(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cells: int, heads: int) -> Tensor:
        """q (m, d) of the `rows` that ask, in increasing order, against k and v (b n, d) of all; `cells` is n. Scaled by 1 / sqrt(d / heads)."""
        if self.near is None or self.there is None:
            return everywhere(q, k, v, rows, cells, heads)
        seen, known = self.near[rows % cells] + (rows - rows % cells)[:, None], self.there[rows % cells]
        q = (q * (q.shape[1] // heads) ** -0.5).unflatten(1, (1, heads, -1))
        if torch.is_grad_enabled():
            return self.looked(q, k, v, seen, known)
        parts = (part.split(CHUNK) for part in (q, seen, known))
        return torch.cat([self.looked(one, k, v, at, there) for one, at, there in zip(*parts, strict=True)])

    def looked(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, known: Tensor) -> Tensor:
        """q (m, 1, heads, d / heads) against the rows `seen` (m, k) that are there -> (m, d)."""
        (m, count), heads = seen.shape, q.shape[2]
        keys, values = (part.index_select(0, seen.flatten()).view(m, count, heads, -1) for part in (k, v))
        logits = times(keys, q).sum(-1)  # (m, k, heads)
        share = logits.masked_fill(~known[..., None], 0.0 if self.null else -torch.inf).softmax(1) * known[..., None]
        return times(values, share[..., None]).sum(1).flatten(1)


def times(x: Tensor, y: Tensor) -> Tensor:
    """x y, written over x where no gradient is asked for."""
    return x * y if torch.is_grad_enabled() else x.mul_(y)


@lru_cache(maxsize=16)
def neighbourhood(space: tuple[int, ...], radius: int | None, border: Border, device: torch.device) -> Neighbourhood:
    """The (2 radius + 1)^d cells around each cell of a grid, or with radius None the whole grid: constants, kept for the next call."""
    if radius is None:
        return Neighbourhood(None, None, False)
    with torch.inference_mode(False):  # or a validation would leave tensors that training cannot use
        offsets = torch.tensor(list(product(range(-radius, radius + 1), repeat=len(space))), device=device)  # (k, d)
        places = torch.stack(torch.meshgrid(*[torch.arange(n, device=device) for n in space], indexing="ij"), -1).flatten(0, -2)
        around = places[:, None] + offsets  # (n, k, d)
        size = torch.tensor(space, device=device)
        there = ((around >= 0) & (around < size)).all(-1)
        inside = around.clamp(min=0).minimum(size - 1)
        near = inside[..., 0]
        for axis in range(1, len(space)):
            near = near * space[axis] + inside[..., axis]
        return Neighbourhood(near, there, border == "null")


def everywhere(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cells: int, heads: int) -> Tensor:
    """The same where every cell sees the whole image, image by image."""
    counts = torch.bincount(rows // cells, minlength=len(k) // cells).tolist()
    parts = []
    for asking, keys, values in zip(q.split(counts), k.split(cells), v.split(cells), strict=True):
        one, two, three = (
            part.unflatten(1, (heads, -1)).transpose(0, 1)[None] for part in (asking, keys, values)
        )  # (1, heads, n, d / heads)
        parts.append(F.scaled_dot_product_attention(one, two, three)[0].transpose(0, 1).flatten(1))
    return torch.cat(parts)
