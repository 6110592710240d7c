"""Broken files of every kind, each read in a process with a bound on memory and on time.

`python tests/faults/fuzz.py KIND COUNT SEED OUT` (tests in PYTHONPATH) reads COUNT broken files and writes what became of them as JSON: read, refused (an
InputError), and what else was raised, with the file that did it. The n-th file is a function of (kind, seed, n). A file that takes
more than LIMIT_S of processor time ends the process by a signal, and so does a crash of a library; the file is then still at OUT.
"""

import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import seeds
from somite import checkpoint, trust
from somite.data import dicom, images, itk, labelled, nifti, packed, published, sources
from somite.errors import InputError

LIMIT_S = 10.0  # processor time of one file
MEMORY = 2**29  # bytes of address space above what the process has when it begins
WORDS = (
    b"-1",
    b"0",
    b"9" * 12,
    b"1e400",
    b"nan",
    b"..",
    b"/",
    b"\0",
    b"\xff",
    b'"',
    b"\n",
    b",",
    b"{",
    b"[",
    b": ",
    b"&a [*a]",
    b"null",
    b"\xef\xbb\xbf",
)


@dataclass(frozen=True)
class Kind:
    """name: of the file in its folder. good: what is broken. read: all that somite does with such a file. beside: puts there what else
    there must be.
    """

    name: str
    good: Callable[[], list[bytes]]
    read: tuple[Callable[[Path], object], ...]
    beside: Callable[[Path], object] = lambda folder: None


def picture(path: Path) -> None:
    images.write_png(path, seeds.GREY)


def pairs(folder: Path) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir()
        for index in range(4):
            picture(folder / part / f"{index}.png")


def four(folder: Path) -> None:
    for index in range(4):
        picture(folder / f"{index}.png")
        picture(folder / f"m{index}.png")


def pictures(folder: Path) -> None:
    (folder / "images").mkdir()
    for index in range(3):
        picture(folder / "images" / f"{index}.png")


def published_list(path: Path) -> object:
    return published.resplit(sources.find(path.parent), str(path))


FLAT = (images.read_image, images.read_labels, images.read_header)
SOLID = (nifti.read_volume, nifti.read_labels, nifti.read_header)
ITK = (itk.read_volume, itk.read_labels, itk.read_header)
KINDS = {
    "png": Kind("a.png", seeds.png, FLAT),
    "jpg": Kind("a.jpg", seeds.jpg, FLAT),
    "tiff": Kind("a.tif", seeds.tiff, FLAT),
    "bmp": Kind("a.bmp", seeds.bmp, FLAT),
    "nii": Kind("a.nii", seeds.nii, SOLID),
    "nii.gz": Kind("a.nii.gz", seeds.nii, SOLID),
    "nrrd": Kind("a.nrrd", lambda: seeds.itk(".nrrd"), ITK),
    "mha": Kind("a.mha", lambda: seeds.itk(".mha"), ITK),
    "dicom": Kind("a.dcm", seeds.dicom, (lambda path: dicom.read_series(path.parent), lambda path: dicom.read_header(path.parent))),
    "safetensors": Kind("a.safetensors", seeds.safetensors, (checkpoint.tensors,)),
    "pth": Kind("a.pth", seeds.pth, (checkpoint.tensors,)),
    "npz": Kind("a.npz", seeds.npz, (lambda path: (packed.array.cache_clear(), labelled.find(path)),)),
    "csv": Kind("a.csv", seeds.table, (sources.find,), four),
    "labels": Kind("labels.csv", seeds.labels, (lambda path: labelled.find(path.parent),), pictures),
    "splits": Kind("splits.json", seeds.splits, (lambda path: sources.find(path.parent),), pairs),
    "published": Kind("list.json", seeds.published, (published_list,), pairs),
    "recipe": Kind("a.yaml", seeds.recipe, (trust.only_own,)),
}


def broken(kind: str, good: list[bytes], seed: int) -> Iterator[bytes]:
    """Files without end."""
    n = 0
    while True:
        draw = random.Random(f"{kind}/{seed}/{n}")
        data = bytearray(draw.choice(good))
        for _ in range(1 + int(draw.expovariate(0.8))):
            change(data, draw)
        repack = seeds.REPACKED.get(kind)
        yield repack(bytes(data)) if repack and (kind == "nii.gz" or draw.random() < 0.7) else bytes(data)
        n += 1


def change(data: bytearray, draw: random.Random) -> None:
    """One defect: bits and bytes, numbers of 2 and 4 bytes at their extremes, words, a piece lost, doubled or moved, the end cut off."""
    if not data:
        return
    at = draw.randrange(min(len(data), draw.choice((32, 400, 10**9))))  # headers stand in front
    length = draw.randrange(1, 1 + draw.choice((4, 64, 1024)))
    match draw.randrange(8):
        case 0:
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            data[at] = draw.randrange(256)
        case 2:
            size = draw.choice((2, 4, 8))
            data[at : at + size] = draw.choice(
                (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, 2 ** (4 * size))
            ).to_bytes(size, draw.choice(("little", "big")))
        case 3:
            data[at:at] = draw.choice(WORDS)
        case 4:
            del data[at : at + length]
        case 5:
            data[at:at] = data[at : at + length]
        case 6:
            other = draw.randrange(len(data))
            data[other : other + length] = data[at : at + length]
        case _:
            if draw.random() < 0.3:
                del data[at:]


def fuzz(kind: str, count: int, seed: int, out: Path) -> dict[str, object]:
    warnings.simplefilter("ignore")
    logging.disable()
    made, folder = KINDS[kind], Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    made.beside(folder)
    files, path = broken(kind, made.good(), seed), folder / made.name
    for read in made.read:  # what loads at the first file is no part of the bound
        path.write_bytes(made.good()[0])
        read(path)
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    free = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space + MEMORY, free[1]))
    nifti.nib.imageglobals.log_level = logging.CRITICAL
    tally, crashes, slowest = {"read": 0, "refused": 0, "crashed": 0}, {}, 0.0
    for _ in range(count):
        data = next(files)
        path.write_bytes(data)
        out.write_bytes(data)  # to be found if this is the last
        began, worst = time.process_time(), "read"
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        for read in made.read:
            try:
                read(path)
            except InputError as error:
                worst = "refused" if worst == "read" else worst
                if len(str(error).splitlines()) != 1:
                    raise
            except Exception as error:
                worst = "crashed"
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
                crashes.setdefault(where, (f"{where}: {str(error)[:100]}", data.hex()))
        signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - began)
        tally[worst] += 1
    resource.setrlimit(resource.RLIMIT_AS, free)
    shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "kind": kind,
        "files": count,
        **tally,
        "slowest_s": round(slowest, 2),
        "peak_mib": round(peak),
        "crashes": list(crashes.values()),
    }


if __name__ == "__main__":
    kind, count, seed, out = sys.argv[1:]
    found = fuzz(kind, int(count), int(seed), Path(out).with_suffix(".last"))
    Path(out).write_text(json.dumps(found))
    print({key: value for key, value in found.items() if key != "crashes"}, *(text for text, _ in found["crashes"]), sep="\n")
