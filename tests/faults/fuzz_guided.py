"""`make fuzz-guided`: the readers of `fuzz.py` once more, led by which of their code a file reaches (Atheris, which is libFuzzer for Python).

Each kind has a process of its own, that begins with the good files and keeps what reaches new code of somite, nibabel, Pillow, pydicom or
PyYAML. Exit code 1 where a file raised anything else than InputError, or took more than `fuzz.LIMIT_S`; it is kept in --out.
With a KIND as first argument it is that process.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

READ = ["somite", "nibabel", "PIL", "pydicom", "yaml"]


def one(kind: str, work: Path, options: list[str]) -> None:
    """Fuzz a kind until libFuzzer's options end it; it does not return."""
    import atheris

    with atheris.instrument_imports(include=READ):
        import fuzz
        import seeds
        from somite.errors import InputError

    import logging
    import resource
    import warnings

    warnings.simplefilter("ignore")
    logging.disable()
    made, repack = fuzz.KINDS[kind], seeds.REPACKED.get(kind)
    folder, corpus = work / "case", work / "corpus"
    for path in (folder, corpus):
        path.mkdir(parents=True)
    made.beside(folder)
    for index, data in enumerate(made.good()):
        (corpus / f"good-{index}").write_bytes(data)

    def read(data: bytes) -> None:
        (folder / made.name).write_bytes(repack(data) if repack else data)
        for each in made.read:
            try:
                each(folder / made.name)
            except InputError as error:
                if len(str(error).splitlines()) != 1:
                    raise

    for data in made.good():  # what loads at the first file is no part of the bound
        read(data)
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + fuzz.MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    atheris.Setup([sys.argv[0], *options, str(corpus)], read)
    atheris.Fuzz()


def run(kind: str, seconds: int, seed: int, out: Path) -> tuple[int, int, str]:
    """How many files a kind's process read, how many of them reached new code, and how it ended: "" or what was found."""
    from fuzz import LIMIT_S

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        work = Path(folder) / "work"
        told = [f"-max_total_time={seconds}", f"-seed={seed + 1}", "-rss_limit_mb=0", f"-timeout={LIMIT_S:.0f}", "-print_final_stats=1"]
        line = [sys.executable, __file__, kind, str(work), *told, f"-artifact_prefix={out}/{kind}-"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": folder}, errors="replace")
        kept = len(list((work / "corpus").glob("*"))) if work.exists() else 0
    read = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    count = int(read[1]) if read else 0
    if done.returncode == 0:
        return count, kept, ""
    what = re.search(r"(?:Uncaught Python exception: ===\n)(.*\n(?:.*\n)?)", done.stderr + done.stdout)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return count, kept, " ".join((what[1] if what else last).split())


def main() -> int:
    from fuzz_all import asked_for, ended  # not before the readers are instrumented in a process of `one`

    asked = asked_for(__doc__, "seconds", 60, "of each kind")
    print("| kind | files | reached new code |\n|---|---|---|", flush=True)
    total, bad = 0, 0
    for kind in asked.kinds:
        count, kept, found = run(kind, asked.seconds, asked.seed, asked.out)
        total, bad = total + count, bad + bool(found)
        print(f"| {kind} | {count:,} | {kept:,} |" + (f"\n    {found}" if found else ""), flush=True)
    return ended(total, bad, asked.out)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        one(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    sys.exit(main())
