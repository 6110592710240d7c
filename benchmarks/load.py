"""What does `somite predict` cost where the images are many, or one is large? `make bench` writes docs/results/load-cpu.md.

Random weights of `medsegdiffnca/demo` (a cellular automaton) and images of noise: what is measured is time and memory, not masks. The command runs in a process of its own,
whose memory is looked at while it works: of many images it may not grow with those that are done, of a large one, answered in windows
(`--tile`), the bound is the image and its answer, not the network's activations. `--count 500 --side 1024` is quick.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from somite.data.images import write_png
from somite.environment import environment
from somite.recipe import build, dump, parse, path_of

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LOOK_S = 0.2  # between two looks at a process's memory


def untrained(folder: Path) -> Path:
    torch.manual_seed(0)
    # The size that the recipe preprocesses to would make all images alike: here each is answered at its own.
    config = parse(path_of("medsegdiffnca/demo"), ["--data.preprocess.size=null"])
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump(config))
    save_file(build(config).method.state_dict(), folder / "weights.safetensors")
    return folder


def noise(folder: Path, count: int, side: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        write_png(folder / f"{index:05d}.png", random.integers(0, 256, (side, side, 3), np.uint8))
    return folder


def predicted(run: Path, images: Path, out: Path, *more: str) -> dict[str, list]:
    """seconds: of each image, in the order in which they were done. memory: MiB (resident) of the process, and how many were done then."""
    line = [sys.executable, "-m", "somite", "predict", str(run), str(images), "--out", str(out), "--members", "1", "--save", "mask", *more]
    process, memory = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), []
    while process.poll() is None:
        resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        done = sum(entry.name.endswith("_mask.png") for entry in os.scandir(out)) if out.is_dir() else 0
        if resident and done:
            memory.append((done, int(resident[1]) / 1024))
        time.sleep(LOOK_S)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    with (out / "cases.csv").open(newline="") as file:
        return {"seconds": [float(row["seconds"]) for row in csv.DictReader(file)], "memory": memory}


def peak(memory: list[tuple[int, float]], first: float, last: float) -> float:
    """The most MiB while the done ones were between these shares of all."""
    most = max(done for done, _ in memory)
    return max((size for done, size in memory if first * most <= done <= last * most), default=float("nan"))


def many(folder: Path, count: int, side: int) -> dict:
    """Small images: memory and time of the first tenth of them and of the last."""
    found = predicted(untrained(folder / "run"), noise(folder / "images", count, side), folder / "out")
    tenth = max(1, count // 10)
    return {
        "count": count,
        "side": side,
        "seconds": float(np.median(found["seconds"])),
        "seconds first tenth": float(np.median(found["seconds"][:tenth])),
        "seconds last tenth": float(np.median(found["seconds"][-tenth:])),
        "MiB first tenth": peak(found["memory"], 0, 0.1),
        "MiB last tenth": peak(found["memory"], 0.9, 1),
    }


def large(folder: Path, side: int, tile: int) -> dict:
    run = folder / "run" if (folder / "run").exists() else untrained(folder / "run")
    images = noise(folder / f"large-{side}", 1, side)
    began, line = time.monotonic(), [sys.executable, "-m", "somite", "predict", str(run), str(images), "--out", str(folder / f"out-{side}")]
    process = subprocess.Popen([*line, "--members", "1", "--save", "mask", "--tile", str(tile)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return {
        "side": side,
        "tile": tile,
        "seconds": time.monotonic() - began,
        "processor seconds": used.ru_utime + used.ru_stime,
        "MiB": used.ru_maxrss / 1024,
    }


def table(values: dict, load: float) -> str:
    about, few = environment(), values["many"]
    lines = [
        "# Many images, and a large one",
        "",
        "`somite predict --members 1 --save mask` with random weights of `medsegdiffnca/demo`, on images of noise.",
        "A colour image takes its pixels, what the network is given of them, noise, logits and probabilities at the same time: "
        "12 numbers of 4 bytes a pixel; cells are held of a window and of the coarse levels alone.",
        "",
        f"`make bench` (`python benchmarks/load.py --side {' '.join(str(one['side']) for one in values['large'])}`) on {about['processor']}, {os.cpu_count()} cores, other processes running (load average at the start: {load:.1f}); {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| images | side | seconds an image (median) | first tenth | last tenth | MiB, first tenth | MiB, last tenth |",
        "|---|---|---|---|---|---|---|",
        f"| {few['count']:,} | {few['side']} | {few['seconds']:.3f} | {few['seconds first tenth']:.3f} | {few['seconds last tenth']:.3f} "
        f"| {few['MiB first tenth']:.0f} | {few['MiB last tenth']:.0f} |",
        "",
        "| one image, side | tile | seconds | of them the processor's | MiB at most |",
        "|---|---|---|---|---|",
        *(
            f"| {one['side']:,} | {one['tile']} | {one['seconds']:.0f} | {one['processor seconds']:.0f} | {one['MiB']:.0f} |"
            for one in values["large"]
        ),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--small", type=int, default=64, help="pixels a side of the many")
    options.add_argument("--side", type=int, nargs="*", default=[2048], help="pixels a side of the large ones, each by itself")
    options.add_argument("--tile", type=int, default=512)
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen, load = options.parse_args(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        values = {"many": many(Path(folder), chosen.count, chosen.small)}
        values["large"] = [large(Path(folder), side, chosen.tile) for side in chosen.side]
    text = table(values, load)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "load-cpu.md").write_text(text)
    (chosen.out / "load-cpu.json").write_text(json.dumps({**values, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
