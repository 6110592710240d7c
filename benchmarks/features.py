"""What do the features of a pretrained network cost on a CPU? `make bench` writes docs/results/features-cpu.md.

The network of `ctpretrain/paper` (49.8 million weights, at random) on one patch of 128 x 128 x 32 voxels: the whole network against its way down,
three timesteps one after the other against one batch, one clean pass against three noised ones, bfloat16 where the processor has it. All forms
run in one process, turn about; medians of process time, and of ratios within a round. What a scan of 350 x 280 x 200 voxels takes is its number of
windows times a window. `--quick`: one round on 32 x 32 x 32 voxels.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import prod
from pathlib import Path

import torch
from sdseg import most

import somite.diffusion.features as module
from somite.diffusion.schedule import linear
from somite.environment import environment, has_bfloat16
from somite.networks.ctpretrain import CTPretrain
from somite.nn.pyramid import Pyramid, Side
from somite.predict.tiling import places

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PATCH, SCAN, TIMES = (128, 128, 32), (350, 280, 200), (10, 30, 60)
PLAIN, BATCH, DOWN, CLEAN, CLEAN_DOWN = (
    "whole network, three noised passes",
    "the same in one batch",
    "way down, three noised passes",
    "whole network, one clean pass",
    "way down, one clean pass",
)
BF16 = ", bfloat16"
FORMS: dict[str, tuple[Sequence[int], bool, Side]] = {  # timesteps, noised or not, the side
    PLAIN: (TIMES, True, "decoder"),
    BATCH: (TIMES, True, "decoder"),
    DOWN: (TIMES, True, "encoder"),
    CLEAN: ([10], False, "decoder"),
    CLEAN_DOWN: ([10], False, "encoder"),
}


@torch.no_grad()
def read(network: CTPretrain, form: str, patch: Sequence[int]) -> Pyramid:
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(1, 1, *patch, generator=generator) for _ in range(2))
    cond = {"coordinates": torch.rand(1, 3, *patch, generator=generator)}
    times, noised, side = FORMS[form.removesuffix(BF16)]
    module.VOXELS = 2**30 if form == BATCH else 1
    with torch.autocast("cpu", torch.bfloat16, enabled=form.endswith(BF16)):
        return module.features(network, x0, cond, linear(), times, [noise] * len(times) if noised else None, side)


def network() -> CTPretrain:
    torch.manual_seed(0)
    return CTPretrain().eval()


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of process time of each form in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {form: [] for form in calls}
    for turn in range(rounds + 1):
        for form, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                seconds[form].append(time.process_time() - start)
    return seconds


def peak(form: str, patch: Sequence[int]) -> None:
    """In a process of its own."""
    read(network(), form, patch)
    print(most())


def peaks(patch: Sequence[int], threads: int) -> dict[str, float]:
    told = [sys.executable, __file__, "--threads", str(threads), "--patch", *map(str, patch)]
    return {form: float(subprocess.run([*told, "--peak", form], capture_output=True, text=True, check=True).stdout) for form in FORMS}


def table(seconds: dict[str, list[float]], memory: dict[str, float], patch: Sequence[int], threads: int) -> str:
    about = environment()
    base = seconds[PLAIN]
    lines = [
        "# What features cost on a CPU",
        "",
        f"`python benchmarks/features.py` on {about['processor']}, {threads} thread(s), torch {torch.__version__}, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}; the network of `ctpretrain/paper` (49.8 million weights, at random), a patch of {' x '.join(map(str, patch))} voxels, float32, "
        f"medians of {len(base)} of process time and of ratios within a round.",
        "",
        "| form | seconds | speed-up | peak memory, MiB |",
        "|---|---|---|---|",
    ]
    for form, some in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(base, some, strict=True))
        used = f"{memory[form]:.0f}" if form in memory else ""
        lines.append(f"| {form} | {statistics.median(some):.2f} | {ratio:.2f} | {used} |")
    counts = {
        overlap: prod(len({place[axis].start for place in places(SCAN, patch, overlap)}) for axis in range(3)) for overlap in (0.5, 0.25)
    }
    plain = counts[0.5] * statistics.median(base)
    lines += [
        "",
        "## A whole scan",
        "",
        f"A scan of {' x '.join(map(str, SCAN))} voxels is {counts[0.5]} windows at an overlap of one half and {counts[0.25]} at a quarter. *Computed* from the times above:",
        "",
        "| form | overlap | minutes | times less than the plain form |",
        "|---|---|---|---|",
        f"| {PLAIN} | 0.5 | {plain / 60:.1f} | 1 |",
    ]
    for form in list(seconds)[1:]:
        whole = counts[0.25] * statistics.median(seconds[form])
        lines.append(f"| {form} | 0.25 | {whole / 60:.1f} | {plain / whole:.1f} |")
    told = (
        "this processor has instructions for it" if has_bfloat16() else "this processor has no instructions for it, so it was not measured"
    )
    return "\n".join(
        [*lines, "", f"bfloat16: {told}. What the forms are worth to a probe is in [Pretraining on volumes](pretraining.md).", ""]
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--patch", type=int, nargs=3, default=PATCH)
    options.add_argument("--quick", action="store_true", help="one round on 32 x 32 x 32 voxels")
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--peak", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    patch = (32, 32, 32) if chosen.quick else tuple(chosen.patch)
    if chosen.peak:
        return peak(chosen.peak, patch)
    made = network()
    names = [*FORMS, *([DOWN + BF16, CLEAN_DOWN + BF16] if has_bfloat16() else [])]
    seconds = timed({form: lambda form=form: read(made, form, patch) for form in names}, 1 if chosen.quick else chosen.rounds)
    memory = peaks(patch, chosen.threads)
    text = table(seconds, memory, patch, chosen.threads)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "features-cpu.md").write_text(text)
    kept = {"seconds": seconds, "peak MiB": memory, "patch": patch, "environment": environment()}
    (chosen.out / "features-cpu.json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
