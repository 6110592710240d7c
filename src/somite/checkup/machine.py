"""What this machine has: memory, shared memory, room on disk."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..data.voxels import memory
from ..wording import size
from .finding import Finding

SHM = Path("/dev/shm")
LITTLE = 2**28  # bytes of shared memory; Docker gives 64 MB where nothing else is asked for
PREFETCHED = 2  # batches a worker of torch's DataLoader prepares ahead
ROOM = 1e9  # bytes that a run folder takes easily


@dataclass(frozen=True)
class Machine:
    """In bytes; None where the system does not tell. free: of memory, for a new process."""

    memory: int | None
    free: int | None
    shared: int | None
    disk: int
    cores: int


def machine(folder: Path = Path()) -> Machine:
    """folder: where runs will lie."""
    whole = memory()
    shared = shutil.disk_usage(SHM).free if SHM.is_dir() else None
    return Machine(int(whole) if whole < float("inf") else None, free_memory(), shared, shutil.disk_usage(folder).free, cores())


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """As Linux estimates it, limits of the container included."""
    found = [int(line.split()[1]) * 1024 for line in lines("/proc/meminfo") if line.startswith("MemAvailable")]
    for name, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        limit, now = ("".join(lines(f"/sys/fs/cgroup/{one}")) for one in (name, used))
        if limit.isdigit() and now.isdigit():
            found.append(int(limit) - int(now))
    return min(found, default=None)


def lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def peak_memory() -> int | None:
    """Bytes that this process had at most; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def machine_findings(found: Machine, workers: int | None = None, batch: int = 0, run: float = ROOM) -> list[Finding]:
    """workers: that the recipe asks for, None without a recipe; batch: bytes of one; run: bytes that its folder will take."""
    findings = []
    needed = (workers or 0) * PREFETCHED * batch
    if workers and found.shared is not None and found.shared < needed:
        told = f"{workers} workers hand over {size(needed)} through {SHM}, which has {size(found.shared)}: they would be killed (bus error)"
        findings.append(Finding("shared-memory", told, "--training.workers 0, a smaller batch, or docker run --shm-size 8g"))
    elif workers is None and found.shared is not None and found.shared < LITTLE:
        told = f"{SHM} has {size(found.shared)}: too little for workers that prepare data (--training.workers)"
        findings.append(Finding("little-shared-memory", told, "fine with --training.workers 0, the default; else docker run --shm-size 8g"))
    if found.disk < run:
        told = f"a run takes about {size(int(run))} on disk, and {size(found.disk)} are free here"
        findings.append(Finding("disk", told, "free some space, or name another disk by --out"))
    return findings
