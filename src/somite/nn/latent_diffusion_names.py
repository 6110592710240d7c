"""The names of latent diffusion's checkpoints (Rombach et al. 2022, arXiv 2112.10752) and diffusers' names for the same.

Read off names and shapes are the sizes too, all but the number of heads: the U-Net's attention holds q, k and v in one tensor, head
by head, and how many heads there are leaves no trace. Levels are numbered from the finest on the way down and, in a decoder, up.
"""

import re
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

State = dict[str, Tensor]

UNET, FIRST_STAGE = "model.diffusion_model.", "first_stage_model."  # the U-Net and the autoencoder in a checkpoint of both
HEADS = 8  # of the published U-Nets

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "nin_shortcut": "conv_shortcut",  # the same in an autoencoder
}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}


def unet_translated(unet: State, heads: int = HEADS) -> State:
    """A U-Net of latent diffusion, of SDSeg or of another without transformers, under diffusers' names."""
    _, blocks = grid(unet)
    ours = {}
    for name, value in unet.items():
        path, _, kind = name.rpartition(".")
        place, _, last = path.rpartition(".")
        if last == "qkv":
            new = unet_place(f"{place}.norm", blocks).removesuffix("group_norm")
            ours |= {f"{new}{one}.{kind}": tensor for one, tensor in zip(("to_q", "to_k", "to_v"), split(value, heads), strict=True)}
        else:
            ours[f"{unet_place(path, blocks)}.{kind}"] = value[..., 0] if last == "proj_out" and value.ndim == 3 else value
    return ours


def kl_translated(network: State) -> State:
    """An autoencoder of latent diffusion, or its encoder, under diffusers' names."""
    count = 1 + max((int(found[1]) for name in network if (found := re.match(r"decoder\.up\.(\d+)\.", name))), default=0)
    ours = {}
    for name, value in network.items():
        path, _, kind = name.rpartition(".")
        inside = ".attn_1." in name and value.ndim == 4  # 1x1 convolutions there, linear maps here
        ours[f"{kl_place(path, count)}.{kind}"] = value[..., 0, 0] if inside else value
    return ours


def widened(unet: State, inputs: int) -> State:
    """A U-Net (diffusers' names) whose first convolution takes at least so many channels, those beyond its own at zero: how SDSeg
    starts from an unconditional latent diffusion model, whose answer at first does not depend on the image.
    """
    first = unet["conv_in.weight"]
    more = first.new_zeros(first.shape[0], max(inputs - first.shape[1], 0), *first.shape[2:])
    return unet | {"conv_in.weight": torch.cat([first, more], 1)}


def part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def split(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """(3 c, c, 1) or (3 c,), head by head and q, k, v within each -> three of (c, c) or (c,)."""
    flat = qkv[..., 0] if qkv.ndim == 3 else qkv
    if len(flat) % (3 * heads):
        raise InputError(f"heads {heads} does not divide the {len(flat) // 3} channels of the checkpoint's attention; 8 is published")
    return tuple(one.flatten(0, 1) for one in flat.unflatten(0, (heads, 3, -1)).unbind(1))


def grid(unet: State) -> tuple[int, int]:
    """Levels, and residual blocks in each (beside one that resamples in all levels but one; on the way up there is one more)."""
    places = {found[1] for name in unet if (found := re.match(r"output_blocks\.(\d+)\.0\.", name))}
    resampling = sum(bool(re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.0\.weight", name)) for name in unet)
    return resampling + 1, len(places) // (resampling + 1) - 1


def unet_levels(unet: State, channels: int) -> dict[str, Any]:
    """Multiples of the width, blocks a level, and the factors of reduction with attention."""
    count, blocks = grid(unet)
    firsts = [unet[f"input_blocks.{1 + level * (blocks + 1)}.0.in_layers.2.weight"] for level in range(count)]
    attend = {int(found[1]) for name in unet if (found := re.match(r"input_blocks\.(\d+)\.1\.qkv\.weight", name))}
    return {
        "mults": [weight.shape[0] // channels for weight in firsts],
        "res_blocks": blocks,
        "attention": sorted({2 ** ((index - 1) // (blocks + 1)) for index in attend}),
    }


def encoder_levels(network: State) -> dict[str, Any]:
    """Width, multiples of it and blocks a level of an autoencoder's encoder."""
    channels, mults, blocks = network["encoder.conv_in.weight"].shape[0], [], 0
    while (weight := network.get(f"encoder.down.{len(mults)}.block.0.conv1.weight")) is not None:
        mults.append(weight.shape[0] // channels)
    while f"encoder.down.0.block.{blocks}.conv1.weight" in network:
        blocks += 1
    return {"channels": channels, "mults": mults, "blocks": blocks}


def unet_place(path: str, blocks: int) -> str:
    """`input_blocks.4.0.in_layers.0` -> `down_blocks.1.resnets.0.norm1`."""
    if path in ENDS:
        return ENDS[path]
    found = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)|middle_block\.([012])\.(.+)", path)
    rest = found and (found[4] or found[6])
    if not found or rest not in RESIDUAL | ATTENTION:
        raise InputError(
            f"the entry {path} has no place in SDSeg's U-Net; give a checkpoint of SDSeg, or of an unconditional latent diffusion model"
        )
    kind, end = ("resnets", RESIDUAL[rest]) if rest in RESIDUAL else ("attentions", ATTENTION[rest])
    if found[5]:
        return f"mid_block.{kind}.{int(found[5]) // 2}.{end}"
    down = found[1] == "input_blocks"
    level, block = divmod(int(found[2]) - down, blocks + 1)
    resamples = block == blocks if down else kind == "resnets" and found[3] != "0"
    side, sampler = ("down_blocks", "downsamplers") if down else ("up_blocks", "upsamplers")
    return f"{side}.{level}.{sampler}.0.{end}" if resamples else f"{side}.{level}.{kind}.{block}.{end}"


def kl_place(path: str, count: int) -> str:
    """`decoder.up.3.block.0.nin_shortcut` -> `decoder.up_blocks.0.resnets.0.conv_shortcut`; `count` levels in the decoder."""
    if found := re.fullmatch(r"(\w+)\.(down|up)\.(\d+)\.(block\.(\d+)|downsample|upsample)\.(.+)", path):
        coder, way, level, piece, block, rest = found.groups()
        at = f"{coder}.{way}_blocks.{count - 1 - int(level) if way == 'up' else level}"
        return f"{at}.{piece}rs.0.{rest}" if block is None else f"{at}.resnets.{block}.{RESIDUAL.get(rest, rest)}"
    if found := re.fullmatch(r"(\w+)\.mid\.(block_1|attn_1|block_2)\.(.+)", path):
        coder, piece, rest = found.groups()
        return f"{coder}.mid_block.{MIDDLE[piece]}.{(ATTENTION if piece == 'attn_1' else RESIDUAL).get(rest, rest)}"
    return path.replace("norm_out", "conv_norm_out")
