"""Training in a process that is killed: at a moment of its processor time, or in the middle of writing a file."""

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def train(line: list[str], die_at: tuple[str, int] | None, started: Path, seed: int = 0) -> None:
    """What the process does. die_at: kill yourself when the n-th file of this name is partly written."""
    from somite.cli import main
    from somite.trainer import callbacks

    if die_at is not None:
        name, left = die_at
        whole = callbacks.replacing

        from contextlib import contextmanager

        @contextmanager
        def torn(path):
            nonlocal left
            with whole(path) as temporary:
                yield temporary
                if Path(path).name == name:
                    left -= 1
                    if left == 0:
                        size = temporary.stat().st_size
                        os.truncate(temporary, random.Random(seed).randrange(size))
                        os.kill(os.getpid(), signal.SIGKILL)

        callbacks.replacing = torn
    started.write_text("")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        raise SystemExit(main(line))


def killed_after(process: BaseProcess, seconds: float) -> bool:
    """Kill it when it has used so much processor time, which does not depend on what else runs here; False where it ended before."""
    while process.is_alive():
        if used(process.pid) >= seconds:
            process.kill()
            break
        time.sleep(0.01)
    process.join()
    return process.exitcode == -signal.SIGKILL


def used(pid: int | None) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK
