"""What a number depends on beside the recipe: versions, machine, command, data."""

import platform
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("somite", "torch", "lightning", "monai", "numpy", "scipy", "nibabel", "pillow")
CPUINFO = Path("/proc/cpuinfo")  # Linux
# The kernel's name of what matters to the speed of matrix products, and its usual one.
INSTRUCTIONS = {
    "amx_bf16": "amx_bf16",
    "avx512_bf16": "avx512_bf16",
    "avx512f": "avx512f",
    "avx2": "avx2",
    "bf16": "bf16",  # ARM
    "sve": "sve",
    "asimd": "neon",
    "neon": "neon",
}
BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}


def environment() -> dict[str, Any]:
    """Without host or user names: run folders are shared."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "command": shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "somite"), *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "commit": commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "instructions": instructions(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """somite's own commit, where it runs from a checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def processor() -> str:
    for line in cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def instructions() -> list[str]:
    """What the CPU has beyond its base, of amx_bf16, avx512_bf16, avx512f, avx2 (x86), bf16, sve, neon (ARM); empty where unknown."""
    present = flags() or set()
    return list(dict.fromkeys(name for flag, name in INSTRUCTIONS.items() if flag in present))


def has_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Does this machine compute matrix products in bfloat16 faster than in float32, not by emulation?

    CPU: by the kernel's list of its instructions, or where there is none by a trial of a few milliseconds. CUDA: by its
    compute capability. Other devices: False, as nobody has measured them.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return False
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    present = flags()
    return probe() if present is None else not BFLOAT16.isdisjoint(present)


def bfloat16_gradients_in_3d() -> bool:
    """Whether this CPU's bfloat16 gradients of 3x3x3 convolutions are right, by one of two cells along the first axis. With oneDNN, as torch
    2.13 has it, on processors with avx512_bf16 they are wrong there by their own size, or NaN.
    """
    numbers = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(2, 16, 2, 4, 4, generator=numbers), torch.randn(16, 16, 3, 3, 3, generator=numbers) / 20
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        weight = kernel.to(dtype, copy=True).requires_grad_()
        torch.nn.functional.conv3d(x.to(dtype), weight, padding=1).float().square().mean().backward()
        assert weight.grad is not None
        found.append(weight.grad.float())
    return bool((found[1] - found[0]).norm() < 0.1 * found[0].norm())


def flags() -> set[str] | None:
    """The CPU's features as the kernel names them; None where it does not say."""
    for line in cpuinfo():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, ARM
            return set(value.split())
    return None


def cpuinfo() -> list[str]:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def probe(size: int = 192, repeats: int = 5) -> bool:
    """Is the product of two (size, size) matrices clearly faster in bfloat16? Of each precision the fastest of `repeats` counts."""

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(size, size, dtype=dtype)
        _ = a @ a  # the first call also chooses the kernel
        took = []
        for _ in range(repeats):
            start = time.perf_counter()
            _ = a @ a
            took.append(time.perf_counter() - start)
        return min(took)

    return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)  # instructions for it halve the time; 0.8 is beyond chance
