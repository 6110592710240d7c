"""Truth: diffusers' DiT with the same random weights in the published layout, and the published counts of weights."""

from pathlib import Path

import pytest
import torch
from diffusers import DiTTransformer2DModel

from somite.contracts import NetworkContract
from somite.errors import InputError
from somite.networks.dit import DiT
from somite.weights.dit import DiTImporter, architecture, translated

HERE = Path("dit.pt")


def tiny(**options):
    return DiT(**{"width": 16, "depth": 2, "heads": 2, "classes": 3} | options)


class TestDiT(NetworkContract):
    mask_channels = 4
    spaces = {2: [(8, 8), (6, 9)], 3: [(4, 4, 4), (3, 5, 4)]}  # noqa: RUF012

    def make(self, dims):
        return tiny(dims=dims, image_channels=3)

    def given(self, b, space):
        x, t, cond = super().given(b, space)
        return x, t, cond | {"labels": torch.randint(2, (b, 3)).float()}


@pytest.mark.parametrize(("patch", "classes", "count"), [(2, 11, 32_633_120), (2, 5, 32_630_816), (4, 11, 32_688_512), (8, 11, 32_910_080)])
def test_the_published_counts_of_weights(patch, classes, count):
    """Spec: 32,731,424, 32,729,120, 32,713,088 and 32,916,224 with the fixed positions of 32 x 32 latents, which we compute."""
    with torch.device("meta"):
        network = DiT(patch=patch, classes=classes)
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_fresh_network_predicts_zero():
    network = tiny()
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), {"labels": torch.eye(3)[:2]}
    out = network(x, t, network.encode(cond))
    assert not out.value.any() and not out.var.any()


def published(seed=0):
    """diffusers' DiT of random weights, one embedding of condition for all blocks as published, and its weights in the published layout."""
    torch.manual_seed(seed)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2, "sample_size": 8}
    theirs = DiTTransformer2DModel(**sizes, num_embeds_ada_norm=3, norm_eps=1e-6).eval()
    first = theirs.transformer_blocks[0].norm1.emb
    for block in theirs.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # DiT's frequencies are 10000^(-i / half); diffusers divides by half - 1
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "emb." not in name:
                p.normal_(std=0.3)
    state = {"pos_embed": theirs.pos_embed.pos_embed, "y_embedder.embedding_table.weight": first.class_embedder.embedding_table.weight}
    layers = {
        "x_embedder.proj": theirs.pos_embed.proj,
        "t_embedder.mlp.0": first.timestep_embedder.linear_1,
        "t_embedder.mlp.2": first.timestep_embedder.linear_2,
        "final_layer.adaLN_modulation.1": theirs.proj_out_1,
        "final_layer.linear": theirs.proj_out_2,
    }
    for i, block in enumerate(theirs.transformer_blocks):
        attention = block.attn1
        for kind in ("weight", "bias"):
            state[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(
                [getattr(one, kind) for one in (attention.to_q, attention.to_k, attention.to_v)]
            )
        layers |= {
            f"blocks.{i}.attn.proj": attention.to_out[0],
            f"blocks.{i}.mlp.fc1": block.ff.net[0].proj,
            f"blocks.{i}.mlp.fc2": block.ff.net[2],
            f"blocks.{i}.adaLN_modulation.1": block.norm1.linear,
        }
    state |= {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items() for kind in ("weight", "bias")}
    return theirs, {name: value.detach() for name, value in state.items()}


def test_it_equals_diffusers_with_labels_and_without():
    theirs, state = published()
    network = DiT(**architecture(state, HERE, heads=2)).eval()
    network.load_state_dict(translated(state, HERE))
    x, t = torch.randn(3, 4, 8, 8), torch.tensor([0, 501, 999])
    labels = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, 0]])
    with torch.no_grad():
        out = network(x, t, network.encode({"labels": labels}))
        want = theirs(x, t, torch.tensor([2, 0, 3])).sample  # 3: the null label
    torch.testing.assert_close(torch.cat([out.value, out.var], 1), want, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_told_by_its_names_and_its_sizes_are_read_off():
    _, state = published()
    assert DiTImporter().recognises(state)
    assert not DiTImporter().recognises({"cell_to_embedding.weight"})
    sizes = {"target_channels": 4, "width": 16, "depth": 2, "heads": 2, "patch": 2, "mlp_ratio": 4, "classes": 3, "learn_variance": True}
    assert architecture(state, HERE, heads=2) == sizes
    with pytest.raises(InputError, match="--heads"):
        architecture(state, HERE)
    with pytest.raises(InputError, match="part of a DiT"):
        architecture({k: v for k, v in state.items() if "fc1" not in k}, HERE, heads=2)
    with pytest.raises(InputError, match="positions"):
        translated(state | {"pos_embed": torch.randn(1, 16, 16)}, HERE)


def test_checkpointing_changes_no_gradient():
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.eye(3)[:2]
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = tiny(checkpointing=checkpointing)
        with torch.no_grad():
            for p in network.parameters():
                p.normal_(std=0.1)
        (network(x, t, network.encode({"labels": labels})).value ** 2).sum().backward()
        grads.append([p.grad for p in network.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("options", "match"), [({"heads": 3}, "heads 3"), ({"depth": 0}, "depth 0")])
def test_sizes_that_do_not_fit_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        tiny(**options)


def test_wrong_inputs_are_refused():
    network = tiny()
    known = network.encode({"labels": torch.zeros(2, 3)})
    with pytest.raises(InputError, match="4 target"):
        network(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long), known)
    with pytest.raises(InputError, match="3 class labels"):
        network.encode({"labels": torch.zeros(2, 4)})
    with pytest.raises(InputError, match="3 class labels"):
        network.encode({"image": torch.zeros(2, 3, 8, 8)})
