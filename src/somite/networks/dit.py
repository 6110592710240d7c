"""DiT: the diffusion transformer over patches (Peebles & Xie 2023, arXiv 2212.09748), with class labels as GeCA has them.

    DiT-S   width 384, depth 12, heads 6      DiT-S/2 with 4 channels and 11 classes has 32,633,120 weights (the default)
    DiT-B   width 768, depth 12, heads 12
    DiT-L   width 1024, depth 24, heads 16
    DiT-XL  width 1152, depth 28, heads 16

Positions are those of the published `pos_embed`, computed for any size. The names of the submodules are the published ones.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..nn.automaton import at_least_one
from ..nn.conditioning import FinalLayer, LabelEmbedder, TimestepEmbedder, counted, embedded, modulated, plain, positions, silent
from ..nn.padding import cropped, extended
from ..types import Cond, Maps, Network, Output, State, Timesteps

EPS = 1e-6


class DiT(Network):
    """`target_channels` of x_t in patches of `patch`; sizes that are no multiple of it are extended.

    classes: of cond["labels"] (b, classes), 0 or 1 each, any number of them set; all zero is the null condition.
    image_channels: of cond["image"], of x_t's size, beside whose channels it is put.
    mlp_ratio: units of the perceptron to the width. checkpointing: keeps a block's input alone for the backward pass.
    """

    def __init__(
        self,
        target_channels: int = 4,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 2,
        mlp_ratio: int = 4,
        classes: int | None = 0,
        image_channels: int = 0,
        learn_variance: bool = True,
        dims: Literal[2, 3] = 2,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        classes = counted(classes)
        at_least_one(target_channels=target_channels, width=width, depth=depth, heads=heads, patch=patch, mlp_ratio=mlp_ratio)
        if width % heads:
            raise InputError(f"--method.network.heads {heads}: does not divide the width {width}; take one that does")
        self.target_channels, self.image_channels, self.width, self.patch = target_channels, image_channels, width, patch
        self.dims, self.checkpointing = dims, checkpointing
        self.outputs = target_channels * (2 if learn_variance else 1)
        self.x_embedder = Patches(target_channels + image_channels, width, patch, dims)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(classes, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio * width) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch**dims * self.outputs, EPS)
        self.final_layer.apply(plain)
        silent(self.final_layer.adaLN_modulation[1], self.final_layer.linear)  # type: ignore[arg-type]

    def encode(self, cond: Cond) -> Cond:
        """The embedding of the labels (b, width), and the image as it is."""
        known = embedded(self.y_embedder, cond)
        return known | {"image": cond["image"]} if self.image_channels else known

    def forward(self, x: Maps, t: Timesteps, cond: Cond, state: State = None) -> Output:
        given = extended(self.joined(x, cond), self.patch)
        space = tuple(n // self.patch for n in given.shape[2:])
        tokens = self.x_embedder(given) + positions("grid", space, self.width, x.device)
        c = self.t_embedder(t)
        if "labels" in cond:
            c = c + cond["labels"]
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, c, use_reentrant=False)
            else:
                tokens = block(tokens, c)
        shift, scale = self.final_layer.modulation(c)
        out = self.final_layer(tokens, shift[:, None], scale[:, None])
        value, *var = cropped(self.unpatched(out, space), x.shape[2:]).split(self.target_channels, 1)
        return Output(value, var=var[0] if var else None)

    def joined(self, x: Tensor, cond: Cond) -> Tensor:
        """x_t and the image, one beside the other's channels."""
        given = torch.cat([x, cond["image"]], 1) if "image" in cond else x
        want = self.target_channels + self.image_channels
        if given.ndim != 2 + self.dims or given.shape[1] != want:
            raise InputError(
                f"this network takes {self.target_channels} target and {self.image_channels} image channels in {self.dims}D, "
                f"together (b, {want}, ...), got {tuple(given.shape)}; set the network's argument target_channels to {x.shape[1]} (or image_channels, or dims)"
            )
        return given

    def unpatched(self, tokens: Tensor, space: tuple[int, ...]) -> Tensor:
        """(b, n, patch^d outputs) -> (b, outputs, *s)"""
        patches = tokens.unflatten(1, space).unflatten(-1, (*[self.patch] * self.dims, self.outputs))
        d = self.dims  # (b, *space, *patch, outputs)
        order = [0, 1 + 2 * d, *[axis for i in range(d) for axis in (1 + i, 1 + d + i)]]
        return patches.permute(order).reshape(len(tokens), self.outputs, *[n * self.patch for n in space])


class Patches(nn.Module):
    """(b, c, *s) -> (b, n, width): a linear map of each patch."""

    def __init__(self, channels: int, width: int, patch: int, dims: int) -> None:
        super().__init__()
        self.proj = {2: nn.Conv2d, 3: nn.Conv3d}[dims](channels, width, patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """adaLN-zero: attention and a perceptron, whose norms are shifted and scaled and whose outputs gated by the condition."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.mlp = Perceptron(width, hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.apply(plain)
        silent(self.adaLN_modulation[1])  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c)[:, None].chunk(6, 2)
        x = x + gate_a * self.attn(modulated(self.norm(x), shift_a, scale_a))
        return x + gate_m * self.mlp(modulated(self.norm(x), shift_m, scale_m))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (b, heads, n, width / heads) each
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
