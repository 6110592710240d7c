"""`make fuzz`: broken files of all kinds, each kind in a process of its own, and a table of what became of them.

Exit code 1 where a file ended a process, or raised anything else than InputError; those files are kept in --out.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz import KINDS

# Of a thousand files; kinds whose reading costs more, or has less to say, have fewer.
SHARE = {"png": 150, "tiff": 120, "jpg": 90, "nii": 120, "nii.gz": 80, "nrrd": 60, "mha": 60, "dicom": 50, "pth": 60, "safetensors": 60}
REST = (1000 - sum(SHARE.values())) / (len(KINDS) - len(SHARE))


def run(kind: str, count: int, seed: int, out: Path) -> dict:
    """What `fuzz.fuzz` says, or, of a process that a file ended, by which signal."""
    told = out / f"{kind}.json"
    line = [sys.executable, str(Path(__file__).with_name("fuzz.py")), kind, str(count), str(seed), str(told)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(told.read_text())
    why = signal.Signals(-done.returncode).name if done.returncode < 0 else done.stderr.strip().splitlines()[-1]
    last = told.with_suffix(".last")
    return {"kind": kind, "files": count, "crashes": [[f"{why} ({last})", last.read_bytes().hex() if last.exists() else ""]]}


def keep(found: dict, out: Path) -> None:
    for index, (_, data) in enumerate(found["crashes"]):
        (out / f"crash-{found['kind']}-{index}").write_bytes(bytes.fromhex(data))


def asked_for(about: str | None, amount: str, usual: int, of: str) -> argparse.Namespace:
    """The options of a search; amount: the one that says how long it is. The folder for what is found is made."""
    options = argparse.ArgumentParser(description=about)
    options.add_argument(f"--{amount}", type=int, default=usual, help=of)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "somite-fuzz")
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    return asked


def ended(files: int, findings: int, out: Path) -> int:
    """The exit code, after the last line."""
    print(f"{files:,} files, {findings} findings" + (f", kept in {out}" if findings else ""))
    return 1 if findings else 0


def main() -> int:
    asked = asked_for(__doc__, "count", 100_000, "files in all")
    print("| kind | files | read | refused | raised | slowest, s | peak memory, MiB |\n|---|---|---|---|---|---|---|", flush=True)
    bad, total = 0, 0
    for kind in asked.kinds:
        found = run(kind, round(asked.count * SHARE.get(kind, REST) / 1000), asked.seed, asked.out)
        total += found["files"]
        cells = (found.get(key, "?") for key in ("files", "read", "refused", "crashed", "slowest_s", "peak_mib"))
        print(f"| {kind} | {' | '.join(map(str, cells))} |", *(f"    {text}" for text, _ in found["crashes"]), sep="\n", flush=True)
        keep(found, asked.out)
        bad += len(found["crashes"])
    return ended(total, bad, asked.out)


if __name__ == "__main__":
    sys.exit(main())
