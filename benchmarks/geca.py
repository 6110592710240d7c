"""How fast is a call of GeCA-S? `make bench` measures here and writes docs/results/geca-cpu.md.

12 updates of 32 x 32 and 64 x 64 cells, one image. The official style is written plainly: neighbours gathered by convolution with one
impulse a neighbour (or by `unfold`, whichever suits the machine; the faster is what speed-ups are over), and every cell, modulation, key and
value computed in every update. All forms get the same fire masks, run in one process, turn about; medians of process time. Their results
must agree to 1e-4, all but bfloat16's: otherwise the benchmark stops. A training step is a call and its gradients; memory is what autograd
keeps for them, each storage once. `--quick`: 32 x 32 alone, one round, no training.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somite.environment import environment, has_bfloat16
from somite.networks.geca import GeCA
from somite.nn.automaton import Expected, Replay
from somite.nn.cell_transformer import CellTransformer
from somite.nn.conditioning import flat_positions, modulated

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TOLERANCE, CLASSES, UPDATES = 1e-4, 11, 12
LABELS = torch.eye(CLASSES)[:1]
SEED = torch.randn(1, 8, generator=torch.Generator().manual_seed(2))


def impulses(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, c, 9, n): each cell's neighbours by one convolution of nine impulses, zero beyond the edge."""
    b, c, h, w = x.shape
    filters = torch.eye(9).view(9, 1, 3, 3)
    return F.conv2d(x.reshape(b * c, 1, h, w), filters, padding=1).view(b, c, 9, h * w)


def unfolded(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return F.unfold(x, 3, padding=1).view(b, c, 9, h * w)


def plain(network: GeCA, x: Tensor, fired: list[Tensor], gather: Callable[[Tensor], Tensor]) -> Tensor:
    """All cells of the official program's network, (b, n, c), after an update for each of `fired`."""
    rule, (h, w) = network.rule, x.shape[2:]
    c = network.t_embedder(torch.tensor([500])) + network.y_embedder(LABELS)
    cells = F.pad(x, (0, 0, 0, 0, 0, network.outputs + network.hidden))
    cells[:, 4:12, h // 2, w // 2] = SEED
    for mask in fired:
        z = rule.cell_to_embedding(cells.flatten(2).transpose(1, 2)) + flat_positions((h, w), network.width, x.device)
        change = changed(rule, z, c, (h, w), gather).transpose(1, 2).unflatten(2, (h, w))
        cells = torch.cat([cells[:, :4], cells[:, 4:] + mask[:, None].float() * change], 1)
    return cells.flatten(2).transpose(1, 2)


def changed(rule: CellTransformer, z: Tensor, c: Tensor, space: tuple[int, int], gather: Callable[[Tensor], Tensor]) -> Tensor:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rule.adaLN_modulation(c)[:, None].chunk(6, 2)
    y = modulated(rule.norm1(z), shift_a, scale_a)
    q, k, v = rule.qkv(y).chunk(3, 2)
    k, v = (gather(part.transpose(1, 2).unflatten(2, space)).unflatten(1, (rule.heads, -1)) for part in (k, v))  # (b, heads, d, 9, n)
    q = q.unflatten(2, (rule.heads, -1)).permute(0, 2, 1, 3)[..., None, :]  # (b, heads, n, 1, d)
    share = (q @ k.permute(0, 1, 4, 2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    z = z + gate_a * rule.proj((share @ v.permute(0, 1, 4, 3, 2))[..., 0, :].transpose(1, 2).flatten(2))
    z = z + gate_m * rule.fc2(F.gelu(rule.fc1(modulated(rule.norm2(z), shift_m, scale_m))))
    shift, scale = rule.final_layer.modulation(c)
    return rule.final_layer(z, shift[:, None], scale[:, None])


def set_up(size: int, **options: object) -> tuple[GeCA, Tensor, list[Tensor]]:
    """GeCA-S as the official program has it. Weights that start at zero are drawn: else nothing would change."""
    torch.manual_seed(0)
    network = GeCA(classes=CLASSES, positions="flat", border="null", hands_on="cells", **options).eval()  # type: ignore[arg-type]
    for weight in network.parameters():
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.02)
    return network, torch.randn(1, 4, size, size), [torch.rand(1, size, size) < 0.5 for _ in range(UPDATES)]


def ours(network: GeCA, x: Tensor, fired: list[Tensor], arithmetic: torch.dtype = torch.float32) -> Tensor:
    network.firing, network.arithmetic = Replay(iter(fired)), arithmetic
    seed = torch.zeros(1, x[0, 0].numel(), network.outputs + network.hidden)
    seed[:, x.shape[2] // 2 * x.shape[3] + x.shape[3] // 2, : network.outputs] = SEED  # as handed on, so that it is no draw
    out = network(x, torch.tensor([500]), network.encode({"labels": LABELS}), seed)
    return torch.cat([x.flatten(2).transpose(1, 2), out.state], 2)


def expected(network: GeCA, x: Tensor) -> Tensor:
    shares = [Expected().draw(0.5, (1, *x.shape[2:]), x.device)] * UPDATES
    return ours(network, x, shares)


@torch.no_grad()
def forward(size: int, rounds: int) -> dict[str, dict[str, float]]:
    network, x, fired = set_up(size)
    forms: dict[str, Callable[[], Tensor]] = {
        "official style, impulses": lambda: plain(network, x, fired, impulses),
        "official style, unfold": lambda: plain(network, x, fired, unfolded),
        "somite float32": lambda: ours(network, x, fired),
        "somite float32, all cells (`Expected`)": lambda: expected(network, x),
    }
    if has_bfloat16():
        forms["somite bfloat16"] = lambda: ours(network, x, fired, torch.bfloat16)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    results: dict[str, Tensor] = {}
    for round_ in range(rounds + 1):
        for name, form in forms.items():
            start = time.process_time()
            results[name] = form()
            if round_:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    truth = results["official style, impulses"]
    moved = truth[..., 4:].std()
    rows = {
        name: {
            "ms an update": 1000 * statistics.median(values) / UPDATES,
            "speed-up": statistics.median(a / b for a, b in zip(seconds["official style, impulses"], values, strict=True)),
            "max difference": float((results[name] - truth).abs().max()),
            "difference / std of the change": float((results[name] - truth).std() / moved),
        }
        for name, values in seconds.items()
    }
    for name in ("official style, unfold", "somite float32"):
        assert rows[name]["max difference"] <= TOLERANCE, f"{name} differs by {rows[name]}"
    assert moved > 0.01, "hardly a cell changed, so that the forms agree says nothing"
    return rows


def training(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of a call and its gradients, MiB that autograd keeps, and the largest difference of a gradient."""
    network, x, fired = set_up(size)
    kept_back, *_ = set_up(size, checkpointing=True)
    forms: dict[str, tuple[GeCA, Callable[[], Tensor]]] = {
        "official style, impulses": (network, lambda: plain(network, x, fired, impulses)),
        "somite": (network, lambda: ours(network, x, fired)),
        "somite, checkpointing": (kept_back, lambda: ours(kept_back, x, fired)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    kept: dict[str, float] = {}
    gradients: dict[str, list[Tensor]] = {}
    for _ in range(rounds):
        for name, (owner, form) in forms.items():
            storages: dict[int, int] = {}

            def keep(tensor: Tensor, storages: dict[int, int] = storages) -> Tensor:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            owner.zero_grad()
            start = time.process_time()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = (form()[..., 4:8] ** 2).mean()
            loss.backward()
            seconds[name].append(time.process_time() - start)
            kept[name] = sum(storages.values()) / 2**20
            gradients[name] = [p.grad.clone() for p in owner.parameters() if p.grad is not None]
    first = "official style, impulses"
    rows = {
        name: {
            "seconds": statistics.median(values),
            "speed-up": statistics.median(a / b for a, b in zip(seconds[first], values, strict=True)),
            "MiB": kept[name],
            "max difference": max(
                float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradients[name], gradients[first], strict=True)
            ),
        }
        for name, values in seconds.items()
    }
    assert all(row["max difference"] <= TOLERANCE for row in rows.values()), rows
    return rows


def table(values: dict, rounds: int, threads: int, load: float) -> str:
    about = environment()
    lines = [
        f"GeCA-S (13.3 M weights), one call of {UPDATES} updates, batch 1, random weights, the same fire masks, process time. Speed-ups are over the first form.",
        "",
        f"`make bench` on {about['processor']} ({', '.join(about['instructions'])}), {os.cpu_count()} cores, {threads} thread(s), other processes running (load average at the start: {load:.1f}); "
        f"medians of {rounds}; torch {torch.__version__}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| cells | form | ms an update | speed-up | max difference | difference / std of the change |",
        "|---|---|---|---|---|---|",
    ]
    for size, rows in values["forward"].items():
        for name, row in rows.items():
            apart = (
                "another question" if "Expected" in name else f"{row['max difference']:.1e} | {row['difference / std of the change']:.1e}"
            )
            apart = f"{apart} | " if "Expected" in name else apart
            lines.append(f"| {size} x {size} | {name} | {row['ms an update']:.1f} | {row['speed-up']:.2f} | {apart} |")
    lines += [
        "",
        "`Expected` lets every cell act by its share, so nothing can be left out but what is the same for all updates; it answers in one pass about what masks answer on average.",
        *(
            []
            if has_bfloat16()
            else ["", "This processor has no bfloat16 instructions (AVX512-BF16, AMX), so that precision is not timed here."]
        ),
        "",
    ]
    if "training" in values:
        lines += [
            "| training step, 32 x 32 | seconds | speed-up | MiB kept for the gradients | max difference of a gradient |",
            "|---|---|---|---|---|",
        ]
        for name, row in values["training"].items():
            lines.append(f"| {name} | {row['seconds']:.2f} | {row['speed-up']:.2f} | {row['MiB']:.0f} | {row['max difference']:.1e} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--quick", action="store_true", help="32 x 32 alone, one round, no training")
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    rounds = 1 if chosen.quick else chosen.rounds
    torch.set_num_threads(chosen.threads)
    load = os.getloadavg()[0]
    values: dict = {"forward": {size: forward(size, rounds) for size in ((32,) if chosen.quick else (32, 64))}}
    if not chosen.quick:
        values["training"] = training(32, rounds)
    text = table(values, rounds, chosen.threads, load)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "geca-cpu.md").write_text(text)
    (chosen.out / "geca-cpu.json").write_text(json.dumps({**values, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
