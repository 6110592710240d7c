"""What does sampling gain from encoding the image once, and from drawing members in one batch? `make bench` writes docs/results/sampling-cpu.md.

SegDiff's image encoder depends on neither x_t nor t: encoded once a sampling (the default) against at every step
(`cache_image` False, as published). Members: `predict.ensemble.sample`, as `Task.predict` calls it, with all members in one
batch against one at a time. Random weights, the same seeds; all forms of a comparison run in one process, turn about, and the
medians of process time are compared. Their results must agree: otherwise the benchmark stops.

At the paper's size two steps are affordable. The ratio grows with the steps, so encoder and U-Net are also timed
apart, and the ratio of a whole sampling is computed from them. `--quick`: one round, without the paper's size.
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
from torch.utils.flop_counter import FlopCounterMode

from somite.diffusion.methods import Diffusion
from somite.environment import environment
from somite.predict.ensemble import sample
from somite.recipe import build, parse, path_of
from somite.rng import seeded

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PAPER_ROUNDS = 3  # a round takes 70 s of process time
TOLERANCE = 1e-4  # of probabilities and of x; an untrained network without clipping makes x larger than 1, which is the harder test
Forms = dict[str, Callable[[], Tensor]]
Timed = dict[str, dict[str, float]]  # form: {"seconds", "speed-up", "max difference", "std"}


def set_up(recipe: str, steps: int) -> Diffusion:
    """A recipe's method. Weights that start at zero are drawn: a network that answers zero would make all forms equal."""
    torch.manual_seed(0)
    method = build(parse(path_of(recipe), [f"--method.sampler.steps={steps}"])).method.eval()
    assert isinstance(method, Diffusion)
    for weight in method.parameters():
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.02)
    return method


def pictures(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def timed(forms: Forms, rounds: int, warm: bool = True) -> Timed:
    """Median seconds, speed-up over the first form, and the largest difference from its result."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    results: dict[str, Tensor] = {}
    for round_ in range(rounds + warm):
        for name, form in forms.items():
            start = time.process_time()
            results[name] = form()
            if round_ >= warm:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    first = next(iter(forms))
    rows = {
        name: {
            "seconds": statistics.median(values),
            "speed-up": statistics.median(a / b for a, b in zip(seconds[first], values, strict=True)),
            "max difference": float((results[name] - results[first]).abs().max()),
            "std": float(results[name].std()),
        }
        for name, values in seconds.items()
    }
    worst = max(row["max difference"] for row in rows.values())
    assert worst <= TOLERANCE, f"the forms disagree by {worst}: {rows}"
    assert rows[first]["std"] > 0, "all results are the same number, so that they agree says nothing"
    return rows


def cache(recipe: str, size: int, steps: int, rounds: int, warm: bool) -> dict:
    """SegDiff with the image encoded at every step and once, its two parts apart, and the operations of each."""
    method = set_up(recipe, steps)
    if not warm:
        encoded(method, 64, False)  # libraries loaded, at a size that costs little
    forms = {
        "encoded at every step": lambda: encoded(method, size, False),
        "encoded once": lambda: encoded(method, size, True),
    }
    both = timed(forms, rounds, warm)
    return {"size": size, "steps": steps, "forms": both, "parts": parts(method, size, rounds), "flops": flops(method, size, steps)}


@torch.no_grad()
def encoded(method: Diffusion, size: int, once: bool) -> Tensor:
    """The last x of one sampling: not a probability, which could hide a difference where it is cut off at 0 and 1."""
    method.network.cache_image = once
    with seeded(0, ["segdiff"]):
        *_, last = method.trajectory({"image": pictures(1, size)}, (1, 1, size, size))
    return last.x


@torch.no_grad()
def parts(method: Diffusion, size: int, rounds: int) -> dict[str, float]:
    """Median seconds of the image encoder and of the U-Net, once each."""
    method.network.cache_image = True
    image, x, t = pictures(1, size), torch.randn(1, 1, size, size), torch.tensor([1])
    seconds: dict[str, list[float]] = {"encoder": [], "unet": []}
    for _ in range(rounds):
        start = time.process_time()
        cond = method.network.encode({"image": image})
        middle = time.process_time()
        method.network(x, t, cond)
        seconds["encoder"].append(middle - start)
        seconds["unet"].append(time.process_time() - middle)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def flops(method: Diffusion, size: int, steps: int) -> dict[str, float]:
    """Counted, not computed: the network moves to the meta device, where tensors have shapes only. Its weights are lost."""
    network = method.network.to("meta")
    x, image, t = (torch.empty(shape, device="meta") for shape in ((1, 1, size, size), (1, 3, size, size), (1,)))
    counted = {}
    for name, once in {"encoded at every step": False, "encoded once": True}.items():
        network.cache_image = once
        with FlopCounterMode(display=False) as counter:
            cond = network.encode({"image": image})
            for _ in range(steps):
                network(x, t, cond)
        counted[name] = float(counter.get_total_flops())
    encoder = (counted["encoded at every step"] - counted["encoded once"]) / (steps - 1)
    return {**counted, "encoder": encoder, "unet": counted["encoded at every step"] / steps - encoder}


def ratio(part: dict[str, float], steps: int) -> float:
    """Cost of a sampling that encodes at every step, over one that encodes once."""
    return steps * (part["encoder"] + part["unet"]) / (part["encoder"] + steps * part["unet"])


def members(recipe: str, size: int, steps: int, count: int, rounds: int) -> dict:
    method, image = set_up(recipe, steps), pictures(1, size)
    forms = {
        "one by one": lambda: drawn(method, image, count, 0, 1),
        f"{count} in one batch": lambda: drawn(method, image, count, 0, count),
    }
    return {"recipe": recipe, "size": size, "steps": steps, "images": 1, "members": count, "forms": timed(forms, rounds)}


def grid(recipe: str, size: int, steps: int, images: int, count: int, rounds: int) -> dict:
    """Several images times several members, as the slices of one volume are drawn."""
    method, stack = set_up(recipe, steps), pictures(images, size)
    forms = {
        "one by one": lambda: drawn(method, stack, count, 0, 1),
        f"{images} batches, an image's {count} members each": lambda: image_by_image(method, stack, count),
        f"{images * count} in one batch": lambda: drawn(method, stack, count, 0, images * count),
    }
    return {"recipe": recipe, "size": size, "steps": steps, "images": images, "members": count, "forms": timed(forms, rounds)}


def drawn(method: Diffusion, images: Tensor, count: int, seed: int, batch: int) -> Tensor:
    return sample(method, {"image": images}, (len(images), 1, *images.shape[2:]), "case", count, seed, batch)


def image_by_image(method: Diffusion, stack: Tensor, count: int) -> Tensor:
    """`sample` numbers the images it is given, so that one image by itself would be drawn as number 0: the names are given here."""
    made = []
    for row in range(len(stack)):
        with torch.no_grad(), seeded(0, [f"case/{row}/{member}" for member in range(count)]):
            made.append(method.sample({"image": stack[[row] * count]}, (count, 1, *stack.shape[2:])))
    return torch.stack(made, 1)


def cache_section(title: str, found: dict, rounds: str, planned: int | None = None) -> list[str]:
    operations, apart = found["flops"], found["parts"]
    every = operations["encoded at every step"]
    rows = [
        f"| {name} | {row['seconds']:.3f} | {row['speed-up']:.2f} | {operations[name] / 1e9:.1f} | {every / operations[name]:.2f} | {row['max difference']:.1e} |"
        for name, row in found["forms"].items()
    ]
    lines = [
        f"**{title}**, {found['size']} x {found['size']}, {found['steps']} steps, one image; {rounds}.",
        "",
        "| image | seconds | speed-up | GFLOP counted | ratio of GFLOP | max difference of x |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Apart: encoder {apart['encoder']:.3f} s and {operations['encoder'] / 1e9:.1f} GFLOP, "
        f"U-Net {apart['unet']:.3f} s and {operations['unet'] / 1e9:.1f} GFLOP. "
        f"Computed from these for {found['steps']} steps: {ratio(apart, found['steps']):.2f} (seconds), {ratio(operations, found['steps']):.2f} (GFLOP).",
    ]
    if planned:
        lines.append(
            f"**Computed, not measured, for {planned} steps: {ratio(apart, planned):.2f} from the seconds, {ratio(operations, planned):.2f} from the GFLOP.**"
        )
    return [*lines, ""]


def batch_section(found: list[dict]) -> list[str]:
    rows = [
        f"| {one['recipe']}, {one['size']} px, {one['steps']} step{'s' * (one['steps'] > 1)} | {one['images']} x {one['members']} "
        f"| {name} | {row['seconds']:.3f} | {row['speed-up']:.2f} | {row['max difference']:.1e} |"
        for one in found
        for name, row in one["forms"].items()
    ]
    head = "| network | images x members | drawn | seconds (median) | speed-up | max difference of a probability |"
    return [head, "|---|---|---|---|---|---|", *rows, ""]


def table(values: dict, rounds: int, threads: int, load: float) -> str:
    about = environment()
    lines = [
        "SegDiff's image encoded once or at every step, and members drawn in one batch or one by one: random weights, the same seeds, process time.",
        "",
        f"`make bench` on {about['processor']} ({', '.join(about['instructions'])}), {os.cpu_count()} cores, {threads} thread(s), other processes running (load average at the start: {load:.1f}); "
        f"torch {torch.__version__}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "## The image encoded once",
        "",
        *cache_section("The network of `segdiff/small`", values["small"], f"medians of {rounds}"),
    ]
    if "paper" in values:
        lines += cache_section(
            "The paper's network for MoNuSeg (`segdiff/official`)", values["paper"], f"medians of {min(rounds, PAPER_ROUNDS)}", 100
        )
    lines += ["## Members in one batch", "", f"Medians of {rounds}.", "", *batch_section(values["batches"])]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--paper", type=int, default=256, metavar="SIZE", help="image size for the paper's network; 0 leaves it out")
    options.add_argument("--quick", action="store_true", help="one round, without the paper's network")
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    rounds, paper = (1, 0) if chosen.quick else (chosen.rounds, chosen.paper)
    torch.set_num_threads(chosen.threads)
    load = os.getloadavg()[0]
    values = {"small": cache("segdiff/small", 64, 10, rounds, warm=True)}
    if paper:
        values["paper"] = cache("segdiff/official", paper, 2, min(rounds, PAPER_ROUNDS), warm=False)
    values["batches"] = [
        members("ensemdiff/small", 64, 10, 10, rounds),
        members("medsegdiffnca/demo", 128, 1, 10, rounds),
        grid("ensemdiff/small", 64, 10, 4, 5, rounds),
        grid("medsegdiffnca/demo", 128, 1, 4, 5, rounds),
    ]
    text = table(values, rounds, chosen.threads, load)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "sampling-cpu.md").write_text(text)
    (chosen.out / "sampling-cpu.json").write_text(json.dumps({**values, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
