"""What does SDSeg's answer cost on a CPU, and what is saved? `make bench` writes docs/results/sdseg-cpu.md.

The published configuration (`sdseg/paper`, 413 million weights) with random weights, one image of 256 x 256, one reverse step. The
plain port (the autoencoder's own decoder, torch's own convolutions: `convolutions: direct`) against the default, with the autoencoder's
decoder and with a tiny one; the parts apart; what each form needs of memory, in a process of its own; and eight classes in one pass
against one at a time. All forms run in one process, turn about; medians of process time, and of the ratios within a round. Results must
agree, otherwise the benchmark stops. `--quick`: one round at 64 pixels.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from somite.diffusion.classwise import OneClassAtATime
from somite.diffusion.codec import Codec
from somite.diffusion.latent import Autoencoder
from somite.diffusion.methods import Diffusion
from somite.diffusion.pictures import Layers, Palette
from somite.environment import environment, has_bfloat16
from somite.networks.sdseg import SDSeg
from somite.nn.tiny import Tiny, sizes
from somite.recipe import build, parse, path_of
from somite.rng import seeded

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TOLERANCE = 1e-2  # of probabilities
CLASSES = 8
PLAIN, FULL, TINY_PLAIN, TINY = "plain port", "autoencoder's decoder", "tiny decoder, direct", "tiny decoder"
FORMS = {PLAIN: ("direct", False), FULL: ("winograd", False), TINY_PLAIN: ("direct", True), TINY: ("winograd", True)}
SAME = {FULL: PLAIN, TINY: TINY_PLAIN}  # what a form must agree with
Calls = dict[str, Callable[[], Tensor]]
Ratios = dict[str, dict[str, float]]


def set_up(codec: dict[str, Any] | None = None, **network: Any) -> tuple[Diffusion, Tiny]:  # noqa: ANN401
    """The published configuration, and a tiny decoder of TAESD's size. Weights that start at zero are drawn: zeros cost and tell nothing."""
    torch.manual_seed(0)
    method = build(parse(path_of("sdseg/paper"), ["--method.codec.scale=0.2"])).method if codec is None else made(codec, network)
    assert isinstance(method, Diffusion)
    tiny = Tiny(**sizes(method.codec.kl))  # type: ignore[arg-type]
    tiny.scale.fill_(1.0)
    for weight in [*method.parameters(), *tiny.parameters()]:
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.02)
    return method.eval(), tiny.eval()


def made(codec: dict[str, Any], network: dict[str, Any]) -> Diffusion:
    """As the recipe's, with another picture of the mask."""
    plain = build(parse(path_of("sdseg/small"))).method
    assert isinstance(plain, Diffusion)
    return Diffusion(SDSeg(**network), plain.schedule, {}, plain.sampler, Autoencoder(scale=0.2, **codec))


def choose(method: Diffusion, tiny: Tiny, form: str) -> None:
    how, small = FORMS[form]
    method.network.convolutions = method.codec.convolutions = how
    method.codec.decoder = tiny if small else None


def picture(size: int) -> Tensor:
    return 2 * torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)) - 1


@torch.no_grad()
def answer(method: Diffusion | OneClassAtATime, size: int) -> Tensor:
    with seeded(0, ["case"]):
        return method.sample({"image": picture(size)}, (1, 1, size, size))


def timed(calls: Calls, rounds: int, warm: bool = True) -> tuple[Ratios, dict[str, Tensor]]:
    """Of each call the median seconds of process time, and the median ratio to the first call of the same round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Tensor] = {}
    for round_ in range(rounds + warm):
        for name, call in calls.items():
            start = time.process_time()
            results[name] = call()
            if round_ >= warm:
                seconds[name].append(time.process_time() - start)
    first = seconds[next(iter(calls))]
    ratio = {name: statistics.median(a / b for a, b in zip(first, found, strict=True)) for name, found in seconds.items()}
    return {name: {"seconds": statistics.median(found), "speed-up": ratio[name]} for name, found in seconds.items()}, results


def whole(method: Diffusion, tiny: Tiny, size: int, rounds: int) -> Ratios:
    """From the image to the probability."""

    def call(form: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            choose(method, tiny, form)
            return answer(method, size)

        return run

    rows, results = timed({form: call(form) for form in FORMS}, rounds)
    for form, other in SAME.items():
        rows[form]["max difference"] = worst = float((results[form] - results[other]).abs().max())
        rows[form]["std"] = float(results[form].std())
        assert worst <= TOLERANCE, f"{form} is {worst} off"
        assert rows[form]["std"] > 10 * worst, "all probabilities are about the same, so that they agree says nothing"
    return rows


@torch.no_grad()
def parts(method: Diffusion, tiny: Tiny, size: int, rounds: int) -> dict[str, Ratios]:
    network, z, t = method.network, torch.randn(1, 4, size // 8, size // 8), torch.tensor([999])
    features = network.encode({"image": picture(size)})["features"]
    inner: dict[str, tuple[Callable[[], Tensor], str, str]] = {
        "vision encoder": (lambda: network.encode({"image": picture(size)})["features"], PLAIN, FULL),
        "U-Net": (lambda: network(z, t, {"features": features}).value, PLAIN, FULL),
        FULL: (lambda: method.codec.decode(z, (1, 1, size, size)), PLAIN, FULL),
        TINY: (lambda: method.codec.decode(z, (1, 1, size, size)), TINY_PLAIN, TINY),
    }
    found = {}
    for part, (call, plain, fast) in inner.items():

        def as_form(form: str, call: Callable[[], Tensor] = call) -> Tensor:
            choose(method, tiny, form)
            return call()

        rows, results = timed(
            {"direct": lambda plain=plain: as_form(plain), "default": lambda fast=fast: as_form(fast)}, rounds, warm=False
        )
        off = (results["default"] - results["direct"]).abs().max() / results["direct"].abs().max()
        rows["default"]["relative difference"] = float(off)
        found[part] = rows
    return found


def classes(size: int) -> dict[str, Ratios]:
    """Eight classes of one image, by each decoder: once, after a warm-up at an eighth of the size."""
    ways: dict[str, Callable[[], tuple[Any, Tiny, Any]]] = {
        "Palette: one pass, one decoding": lambda: mapped(Palette(CLASSES)),
        f"Layers: one pass, {CLASSES - 1} decodings": lambda: mapped(Layers(CLASSES), mask_latents=CLASSES - 1),
        f"OneClassAtATime: {CLASSES - 1} passes, {CLASSES - 1} decodings": one_at_a_time,
    }
    found: dict[str, Ratios] = {FULL: {}, TINY: {}}
    for name, way in ways.items():
        method, tiny, inner = way()
        for form, rows in found.items():
            choose(inner, tiny, form)
            answer(method, max(size // 8, 32))
            rows[name] = timed({name: lambda method=method: answer(method, size)}, 1, warm=False)[0][name]
        del method, tiny, inner
    for rows in found.values():
        least = next(iter(rows.values()))["seconds"]
        for row in rows.values():
            row["times"] = row["seconds"] / least
    return found


def mapped(drawn: Codec, **network: int) -> tuple[Diffusion, Tiny, Diffusion]:
    method, tiny = set_up({"picture": drawn}, **network)
    return method, tiny, method


def one_at_a_time() -> tuple[OneClassAtATime, Tiny, Diffusion]:
    method, tiny = set_up({}, classes=CLASSES)
    return OneClassAtATime(method, CLASSES).eval(), tiny, method


def peak(form: str, size: int) -> None:
    """Prints what this process needed at most, in MiB; form "none" imports and builds nothing."""
    if form in FORMS:
        method, tiny = set_up()
        choose(method, tiny, form)
        answer(method, size)
    print(most())


def most() -> float:
    """MiB. Linux hands ru_maxrss of a parent down to its children, so there the kernel's own count of this program is read."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peaks(size: int, threads: int) -> dict[str, float]:
    def child(form: str) -> float:
        command = [sys.executable, __file__, "--peak", form, "--size", str(size), "--threads", str(threads)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    return {form: child(form) for form in ("none", *FORMS)}


def aims(end: Ratios, memory: dict[str, float], size: int) -> list[str]:
    """Whether what was aimed at was reached; at 256 pixels, which the aims are about."""
    best, full = end[TINY]["speed-up"], end[FULL]["speed-up"]
    met = {True: "met", False: "**not met**"}
    peaks = ", ".join(f"{form}: {memory[form] * 2**20 / 1e9:.2f}, {met[memory[form] * 2**20 < 2.5e9]}" for form in SAME)
    line = (
        f"Aimed at: 4 times with the tiny decoder ({met[best >= 4]}), 1.6 times with the autoencoder's at a difference of at most 0.01 ({met[full >= 1.6]}), "
        f"less than 2.5 GB (10^9 bytes) at the peak ({peaks})."
    )
    return [line, ""] if size == 256 else []


def run_of(values: dict[str, Any], load: float) -> dict[str, Any]:
    """What of a run stays on the page when a later one takes its place."""
    ratios = {form: values["whole"][form]["speed-up"] for form in SAME}
    peaks = {form: values["peak MiB"][form] for form in SAME}
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "load": load, "speed-up": ratios, "peak MiB": peaks}


def history(runs: list[dict[str, Any]]) -> list[str]:
    """Every run, since ratios fall where other processes want the same memory and caches."""
    head = ["date", "load at the start", *(f"{form}: {what}" for what in ("speed-up", "peak, MiB") for form in SAME)]
    lines = ["## Every run of this page", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for run in runs:
        told = [f"{run['speed-up'][form]:.2f}" if form in run["speed-up"] else "" for form in SAME]
        told += [f"{run['peak MiB'][form]:.0f}" if form in run["peak MiB"] else "" for form in SAME]
        lines.append(f"| {run['date']} | {run['load']:.1f} | " + " | ".join(told) + " |")
    return [*lines, "", "The tables above are those of the last one.", ""]


def left(parts: dict[str, Ratios]) -> str:
    """Where the time of the fastest form goes."""
    seconds = {name: parts[name]["default"]["seconds"] for name in ("vision encoder", "U-Net", TINY)}
    shares = ", ".join(f"{name} {100 * value / sum(seconds.values()):.0f} %" for name, value in seconds.items())
    return f"What is left, with the tiny decoder: {shares}."


def table(values: dict[str, Any], size: int, rounds: int, threads: int, load: float) -> str:
    about, end, memory = environment(), values["whole"], values["peak MiB"]
    lines = [
        "SDSeg's answer on a CPU: the published configuration (`sdseg/paper`, 413 million weights) with random weights, one image, one reverse step, float32.",
        "",
        f"`make bench` on {about['processor']} ({', '.join(about['instructions'])}), {os.cpu_count()} cores, {threads} thread(s), other processes running "
        f"(load average at the start: {load:.1f}); torch {torch.__version__}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}. "
        f"{size} x {size} pixels, medians of {rounds} of process time and of the ratios within a round.",
        "",
        "## From image to probability",
        "",
        "| form | seconds | speed-up | max difference of a probability | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for form, row in end.items():
        off = f"{row['max difference']:.1e} from {SAME[form]}" if form in SAME else ""
        lines.append(f"| {form} | {row['seconds']:.2f} | {row['speed-up']:.2f} | {off} | {memory[form]:.0f} |")
    lines += [
        "",
        "*Plain port*: the autoencoder's decoder and torch's own convolutions (`convolutions: direct`). The others are the default, "
        "`convolutions: winograd`: 3x3 convolutions of 64 channels and 32 x 32 pixels or more by F(6x6, 3x3) in NNPACK (`nn/winograd.py`), "
        "those of few pixels by one matrix product, no rearranging of weights behind an attention, SiLUs in place (`nn/inference.py`). "
        "The tiny decoder has TAESD's size (width 64, 3 blocks; the recipe `autoencoder/tiny` makes a smaller one) and random weights here: "
        "how well a trained one decodes is not this page's question.",
        "",
        f"Of the memory, {memory['none']:.0f} MiB are Python with its libraries and 1575 the weights, of all networks. "
        "A process of its own for each form: build the method, answer once; reading a run from its files is not in it.",
        "",
        *aims(end, memory, size),
        "## The parts",
        "",
        "| part | direct, seconds | default, seconds | speed-up | difference / largest value |",
        "|---|---|---|---|---|",
    ]
    for part, row in values["parts"].items():
        fast = row["default"]
        lines.append(
            f"| {part} | {row['direct']['seconds']:.2f} | {fast['seconds']:.2f} | {fast['speed-up']:.2f} | {fast['relative difference']:.1e} |"
        )
    lines += [
        "",
        "The U-Net's large convolutions stay direct: at 32 x 32 pixels and less they gain little, and an error of its noise is multiplied by 38.7 "
        "in the step from T-1.",
        "",
        left(values["parts"]),
        "",
        f"bfloat16 is in none of these numbers ({'this processor has' if has_bfloat16() else 'this processor has no'} instructions for it), and SDSeg has no "
        "option for it. On another processor, which has them, mixed precision and channels-last took the plain decoder from 6.4 s to 3.0 s, with differences "
        "up to 0.08; what is Winograd's here computes in float32 only, so the two gains would not multiply.",
        "",
    ]
    if "classes" in values:
        lines += [f"## {CLASSES} classes of one image", ""]
        lines += ["| way | autoencoder's decoder, seconds | times | tiny decoder, seconds | times |", "|---|---|---|---|---|"]
        for name, row in values["classes"][FULL].items():
            small = values["classes"][TINY][name]
            lines.append(f"| {name} | {row['seconds']:.2f} | {row['times']:.2f} | {small['seconds']:.2f} | {small['times']:.2f} |")
        lines += ["", "Measured once each, so to a tenth or so. The slices of a volume cost as many images.", ""]
    return "\n".join([*lines, *history(values["runs"])])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--size", type=int, default=256, help="of the image")
    options.add_argument("--quick", action="store_true", help="one round at 64 pixels, without several classes")
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--peak", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.peak:
        return peak(chosen.peak, chosen.size)
    rounds, size = (1, 64) if chosen.quick else (chosen.rounds, chosen.size)
    load = os.getloadavg()[0]
    method, tiny = set_up()
    values: dict[str, Any] = {"size": size, "rounds": rounds}
    values["whole"] = whole(method, tiny, size, rounds)
    values["parts"] = parts(method, tiny, size, rounds)
    del method, tiny
    values["peak MiB"] = peaks(size, chosen.threads)
    if not chosen.quick:
        values["classes"] = classes(size)
    kept = chosen.out / "sdseg-cpu.json"
    values["runs"] = [*(json.loads(kept.read_text())["runs"] if kept.is_file() else []), run_of(values, load)]
    text = table(values, size, rounds, chosen.threads, load)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "sdseg-cpu.md").write_text(text)
    kept.write_text(json.dumps({**values, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
