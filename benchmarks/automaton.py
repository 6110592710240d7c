"""How fast and how small is a MedSegDiffNCA level? `make bench` measures here and writes docs/results/automaton-cpu.md (or -cuda.md).

64 channels, 512 hidden units, 10 updates, 256 x 256, batch 1, no gradient; the naive form is written in the style of the
published code (transposes, concatenation, all cells computed). All forms get the same fire masks, run in one process, turn
about, and the medians of process time are compared. Memory is the peak resident size above the loaded process, each form
in a process of its own.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somite.environment import environment
from somite.nn.automaton import Automaton, Replay

CHANNELS, HIDDEN, UPDATES = 64, 512, 10
RESULTS = Path(__file__).parents[1] / "docs" / "results"


def naive(rule: Automaton, cells: Tensor, fired: list[Tensor], training: bool = False) -> Tensor:
    """The published style: channels moved back and forth, both convolutions apart, every cell thinks, then a mask."""
    kernels = [k.transpose(2, 3) for k in rule.perceive.weight.chunk(2)]  # the transposes below also swap the image's axes
    biases = rule.perceive.bias.chunk(2)
    s = cells.permute(0, 2, 3, 1)
    for mask in fired:
        x = s.transpose(1, 3)
        wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
        z = torch.cat((x, F.conv2d(wide, kernels[0], biases[0]), F.conv2d(wide, kernels[1], biases[1])), 1).transpose(1, 3)
        ds = rule.act(F.leaky_relu(rule.think(z), rule.slope)) * mask[..., None].float()
        s = (s.transpose(1, 3) + ds.transpose(1, 3)).transpose(1, 3)
    return s.permute(0, 3, 1, 2)


def fast(rule: Automaton, cells: Tensor, fired: list[Tensor], arithmetic: torch.dtype) -> Tensor:
    rule.arithmetic, rule.firing = arithmetic, Replay(iter(fired))
    return rule(cells, len(fired))


def set_up(size: int, updates: int, device: str) -> tuple[Automaton, Tensor, list[Tensor]]:
    torch.manual_seed(0)
    rule = Automaton(CHANNELS, HIDDEN, slope=0.01).eval().to(device)
    nn.init.normal_(rule.act.weight, std=0.02)
    return (
        rule,
        (0.5 * torch.randn(1, CHANNELS, size, size)).to(device),
        [(torch.rand(1, size, size) < 0.5).to(device) for _ in range(updates)],
    )


def forms(device: str, size: int = 256) -> dict[str, Callable[[], Tensor]]:
    rule, cells, fired = set_up(size, UPDATES, device)
    return {
        "naive float32": lambda: naive(rule, cells, fired),
        "somite float32": lambda: fast(rule, cells, fired, torch.float32),
        "somite bfloat16": lambda: fast(rule, cells, fired, torch.bfloat16),
    }


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds and the largest difference from the naive form."""
    seconds: dict[str, list[float]] = {}
    results: dict[str, Tensor] = {}
    with torch.no_grad():
        made = forms(device)
        for round_ in range(rounds + 1):
            for name, form in made.items():
                start = clock(device)
                results[name] = form()
                if round_:  # the first round warms up
                    seconds.setdefault(name, []).append(clock(device) - start)
    truth = results["naive float32"]
    return {
        name: {
            "seconds": statistics.median(values),
            "speed-up": statistics.median(n / s for n, s in zip(seconds["naive float32"], values, strict=True)),
            "max error": float((results[name] - truth).abs().max()),
            "error / std of the cells": float((results[name] - truth).std() / truth.std()),
        }
        for name, values in seconds.items()
    }


def memory(name: str) -> float:
    """MiB above the loaded process, in a process of its own."""
    line = [sys.executable, __file__, "--memory", name]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def measure_memory(name: str) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        forms("cpu", size=16)[name]()  # libraries loaded, kernels chosen
        form = forms("cpu")[name]
        Path("/proc/self/clear_refs").write_text("5")  # start the peak again from what is resident now
        before = peak()
        form()
    print(peak() - before)


def peak() -> float:
    """Peak resident MiB (Linux)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def training_memory() -> dict[str, float]:
    """Bytes kept for the backward pass by each further update, in MiB, and the largest difference of a gradient."""
    kept = {}
    for kind in ("naive", "somite"):
        sizes = []
        for updates in (2, 6):
            rule, cells, fired = set_up(128, updates, "cpu")
            rule.train()
            sizes.append(saved_bytes(lambda r=rule, c=cells, f=fired, k=kind: naive(r, c, f) if k == "naive" else trained(r, c, f)))
        kept[kind] = (sizes[1] - sizes[0]) / 4 / 2**20
    rule, cells, fired = set_up(64, 4, "cpu")
    ours, theirs = (gradients(rule, form(rule, cells, fired)) for form in (trained, naive))
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))
    return {"naive": kept["naive"], "somite": kept["somite"], "ratio": kept["somite"] / kept["naive"], "gradient difference": worst}


def trained(rule: Automaton, cells: Tensor, fired: list[Tensor]) -> Tensor:
    s = cells.movedim(1, -1)
    for mask in fired:
        s = rule.update(s, mask)
    return s.movedim(-1, 1)


def gradients(rule: Automaton, out: Tensor) -> list[Tensor]:
    rule.zero_grad()
    (out**2).mean().backward()
    return [p.grad.clone() for p in rule.parameters()]


def saved_bytes(form: Callable[[], Tensor]) -> int:
    """What autograd keeps, each storage once."""
    storages: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        form().sum()
    return sum(storages.values())


def table(device: str, speed: dict, memories: dict[str, float], training: dict[str, float], threads: int) -> str:
    about = environment()
    machine = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{about['processor']} ({', '.join(about['instructions'])}), {threads} thread(s)"
    )
    rows = [
        f"| {name} | {s['seconds']:.3f} | {s['speed-up']:.2f} | {memories.get(name, float('nan')):.0f} | {s['max error']:.1e} | {100 * s['error / std of the cells']:.2f} % |"
        for name, s in speed.items()
    ]
    return "\n".join(
        [
            f"One level: {CHANNELS} channels, {HIDDEN} hidden, {UPDATES} updates, 256 x 256, batch 1, no gradient, the same fire masks.",
            "",
            f"`make bench` on {machine}; torch {torch.__version__}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}.",
            "",
            "| form | seconds (median) | speed-up | MiB above the loaded process | max error | error / std of the cells |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Training, kept for the backward pass by each further update at 128 x 128: "
            f"{training['somite']:.2f} MiB against {training['naive']:.1f} MiB in the naive form ({100 * training['ratio']:.1f} %); "
            f"gradients differ by at most {training['gradient difference']:.1e} of the largest.",
            "",
        ]
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--memory", help=argparse.SUPPRESS)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    if chosen.memory:
        return measure_memory(chosen.memory)
    torch.set_num_threads(chosen.threads)
    speed = timed(chosen.device, chosen.rounds)
    memories = {name: memory(name) for name in speed} if chosen.device == "cpu" else {}
    training = training_memory()
    text = table(chosen.device, speed, memories, training, chosen.threads)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / f"automaton-{chosen.device}.md").write_text(text)
    values = {"speed": speed, "memory_mib": memories, "training": training, "environment": environment()}
    (chosen.out / f"automaton-{chosen.device}.json").write_text(json.dumps(values, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
