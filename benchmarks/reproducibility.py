"""How far are two trainings apart, and two predictions of the same weights, that differ in nothing but threads or instructions?

`make bench` writes docs/results/reproducibility-cpu.md. Each run is a process of its own with its number of threads and its
`ATEN_CPU_CAPABILITY` (torch's kernels: "default" without vector instructions beyond the baseline, "avx2", "avx512"). oneDNN, which
computes convolutions, looks at the processor itself; ONEDNN_MAX_CPU_ISA is therefore set to the same. The reference is run twice: on
one machine with the same setting nothing may differ.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from somite.data.phantoms import write_phantoms
from somite.environment import environment

RESULTS = Path(__file__).parents[1] / "docs" / "results"
ONEDNN = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}
# Recipes made small enough for 40 steps in seconds.
RECIPES = {
    "medsegdiffnca/demo": ["--data.crop=32", "--data.preprocess.size=null", "--training.batch=4"],
    "segdiff/small": ["--method.network.channels=32", "--data.crop=32", "--data.preprocess.size=null", "--training.batch=2"],
}
# In one process: train, then answer images by the reference's weights.
WORK = """
import sys, numpy, torch
threads, answers, reference, images, *line = sys.argv[1:]
torch.set_num_threads(int(threads))
from somite.cli import main
assert main(line) == 0
import somite
run = somite.load(reference, device="cpu")
numpy.savez(answers, *[run.predict(path).probability for path in images.split(":")])
"""


def environ(threads: int, capability: str) -> dict[str, str]:
    more = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MKL_NUM_THREADS": str(threads),
        "ATEN_CPU_CAPABILITY": capability,
    }
    return {**os.environ, **more, "ONEDNN_MAX_CPU_ISA": ONEDNN[capability]}


def work(recipe: str, data: Path, out: Path, reference: Path, threads: int, capability: str, steps: int) -> tuple[list[np.ndarray], ...]:
    """The weights after training, and the probabilities that the reference's weights give."""
    size = [
        f"--training.steps={steps}",
        f"--training.validate={steps}",
        "--training.warmup=5",
        "--training.ema=0",
        "--training.precision=32-true",
    ]
    line = ["train", recipe, f"--data.root={data}", "--out", str(out), *RECIPES[recipe], *size]
    answers, images = out.with_suffix(".npz"), ":".join(sorted(str(path) for path in (data / "images").iterdir())[:4])
    told = [sys.executable, "-c", WORK, str(threads), str(answers), str(reference), images, *line]
    subprocess.run(told, env=environ(threads, capability), check=True, stdout=subprocess.DEVNULL)
    with np.load(answers) as found:
        return list(load_file(out / "weights.safetensors").values()), [found[name] for name in found.files]


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, float]:
    """The largest difference, and relative to the root mean square of all numbers."""
    a, b = (np.concatenate([one.ravel().astype(np.float64) for one in some]) for some in (ours, theirs))
    return {
        "max": float(np.abs(a - b).max()),
        "relative": float(np.linalg.norm(a - b) / np.linalg.norm(a)),
        "masks": int(((a >= 0.5) != (b >= 0.5)).sum()),
        "numbers": a.size,
    }


def measure(recipe: str, folder: Path, settings: list[tuple[int, str]], steps: int) -> list[dict]:
    data = write_phantoms(folder / "data", 12, (48, 48))
    found, rows = [], []
    for index, (threads, capability) in enumerate([settings[0], *settings]):  # the reference twice
        found.append(work(recipe, data, folder / f"run{index}", folder / "run0", threads, capability, steps))
        if index:
            row = {"recipe": recipe, "threads": threads, "capability": capability, "steps": steps}
            trained, predicted = (apart(first, here) for first, here in zip(found[0], found[-1], strict=True))
            rows.append({**row, "trained": trained, "predicted": predicted})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def amount(number: float) -> str:
    return "0" if number == 0 else f"{number:.1e}"


def table(rows: list[dict], steps: int) -> str:
    about = environment()
    first = rows[0]
    lines = [
        f"Against {first['threads']} thread and `{first['capability']}` on the same machine; the first row of a recipe is the same setting again.",
        "",
        f"`python benchmarks/reproducibility.py` on {about['processor']} ({', '.join(about['instructions'])}), {datetime.now(UTC):%Y-%m-%d}.",
        "",
        f"| recipe, made small | threads | instructions | weights after {steps} steps: relative difference | largest | probabilities of the same weights: largest difference | mask pixels that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made, said = row["trained"], row["predicted"]
        cells = (row["recipe"], row["threads"], row["capability"], amount(made["relative"]), amount(made["max"]), amount(said["max"]))
        lines.append(f"| {' | '.join(map(str, cells))} | {said['masks']} of {said['numbers']:,} |")
    return "\n".join([*lines, ""])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    options.add_argument("--capabilities", nargs="+", default=["avx2", "default", "avx512"], choices=list(ONEDNN))
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    first = chosen.capabilities[0]
    settings = [(threads, first) for threads in chosen.threads] + [(chosen.threads[0], other) for other in chosen.capabilities[1:]]
    rows = []
    for recipe in chosen.recipes:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(recipe, Path(folder), settings, chosen.steps)
    text = table(rows, chosen.steps)
    print(text)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "reproducibility-cpu.md").write_text(text)
    (chosen.out / "reproducibility-cpu.json").write_text(json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
