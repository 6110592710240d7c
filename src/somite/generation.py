"""Images drawn from a run of synthesis: files, a sheet of them, and a table of what was asked for. Image i is a function of (seed, i).

Whoever draws it, in whatever batch: so a thousand images go on where they were stopped, and parts of them can be drawn elsewhere, by
processes of this machine or a cluster's.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .data.images import write_png
from .engines import Engine
from .errors import InputError
from .files import read_json, replacing, sha256, write_json
from .pipeline import Run, load
from .predict.ensemble import draw
from .sampling import Sampling
from .tasks.synthesis import LABELS, Synthesis
from .tasks.synthesis.looks import pixels, sheet

SHOWN = 64  # images on the sheet
MANY = 20  # labels that are named one by one


@dataclass(frozen=True)
class Part:
    """The images of some consecutive numbers, and all that a worker must know to draw them. labels: (n, K), those of these images."""

    run: Path
    overrides: tuple[str, ...]
    seed: int
    device: str
    rows: range
    labels: list[list[float]]
    size: tuple[int, int]
    out: Path


def generate(
    run: Run,
    out: Path,
    count: int,
    labels: Tensor | None = None,
    names: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    first: int = 0,
    progress: Callable[[Sequence[Part]], Iterable[Part]] = iter,
    engine: Engine | None = None,
) -> list[Path]:
    """Write images/sample-00000.png ..., labels.csv (a labelled data set), sheet.png and sampling.json into `out`; images that are there are
    kept. Returns their paths.

    labels: (count, K), what each image is asked to show, and `names` of the K; None where the run knows none. size: (h, w), the recipe's
    by default; any size that the network takes. first: the number of the first image, for parts that are drawn apart. engine: whose
    workers draw; None draws here.
    Raises InputError for a run that makes no images, and for a folder that holds images of other settings.
    """
    task, data = run.recipe.task, run.recipe.data
    if not isinstance(task, Synthesis):
        raise InputError(f"{run.path} is no run of synthesis; give one whose recipe has the task somite.tasks.synthesis.Synthesis")
    if count < 1:
        raise InputError(f"-n {count}: draw at least 1 image")
    if first < 0:
        raise InputError(f"--first {first}: images are numbered from 0 on")
    size = size or size_of(data.preprocess.size, run)
    if min(size) < 1:
        raise InputError(f"--size {size[0]} {size[1]}: an image has at least 1 px a side")
    shape = (first + count, data.preprocess.channels, *size)
    run.method.codec.shape(shape)
    settings = {"run": str(run.path.resolve()), "weights": sha256(run.path / "weights.safetensors"), **run.told, "size": list(size)}
    same(out / "sampling.json", settings)
    asked = torch.zeros(count, 0) if labels is None else labels
    paths = [path_of(out, first + index) for index in range(count)]
    left = [first + index for index, path in enumerate(paths) if not path.is_file()]
    write_json(out / "sampling.json", settings)
    told = (run.path.resolve(), run.sampling.overrides, run.sampling.seed, str(next(run.method.parameters()).device))
    parts = [
        Part(*told, rows, asked[rows.start - first : rows.stop - first].tolist(), size, out.resolve()) for rows in runs_of(left, task.batch)
    ]
    if engine is None:
        for part in progress(parts):
            paint(run, part)
    elif parts:
        for _ in zip(engine.run(work, parts), progress(parts), strict=True):
            pass  # what is drawn is a file
    write_table(out / "labels.csv", paths, asked, names)
    with replacing(out / "sheet.png") as temporary:
        sheet([opened(path) for path in paths[:SHOWN]]).save(temporary, format="PNG")
    return paths


def paint(run: Run, part: Part) -> None:
    """Draw a part's images with this run, and write them."""
    rows, labels = part.rows, torch.tensor(part.labels)
    cond = {LABELS: torch.cat([labels.new_zeros(rows.start, labels.shape[1]), labels])}
    shape = (rows.stop, run.recipe.data.preprocess.channels, *part.size)
    with torch.no_grad():
        (images,) = draw(run.method, cond, shape, "sample", rows, 1, part.seed, len(rows))
    for row, image in zip(rows, images, strict=True):
        write_png(path_of(part.out, row), pixels(image))


def work(part: Part) -> range:
    """`paint` for a worker process; returns the numbers of the images that are there now."""
    torch.set_num_threads(1)  # workers are as many as there are cores for them
    paint(opened_run(part.run, part.overrides, part.device), part)
    return part.rows


@lru_cache(maxsize=1)
def opened_run(path: Path, overrides: tuple[str, ...], device: str) -> Run:
    """A worker draws many parts of one run. Who asks for parts has opened the run before, and so trusts it."""
    run = load(path, trust=True, device=device)
    return run.under(Sampling(1, overrides=overrides).named)


def path_of(out: Path, number: int) -> Path:
    return out / "images" / f"sample-{number:05d}.png"


def asked(run: Run, count: int, text: str | None) -> tuple[Tensor | None, list[str]]:
    """(count, K) labels and their names: those named in `text`, separated by commas, in every image; without it one class after the other.

    Raises InputError for labels that the run does not know, and for a run without labels that is asked for some.
    """
    task, names = run.recipe.task, list(run.recipe.data.classes or ())
    if not (isinstance(task, Synthesis) and task.labelled):
        if text is not None:
            raise InputError(f"--labels {text}: {run.path} was trained without labels; leave --labels out")
        return None, []
    if text is None:
        return torch.eye(len(names))[torch.arange(count) % len(names)], names
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        told = unknown[0] if unknown else f"{text!r} names none"
        raise InputError(f"--labels {told}: the run knows {listed(names)}")
    return torch.tensor([[float(name in wanted) for name in names]]).expand(count, -1), names


def listed(names: Sequence[str]) -> str:
    """All of a few names; an imported run may know a thousand."""
    return ", ".join(names) if len(names) <= MANY else f"{', '.join(names[:MANY])} ... {names[-1]} ({len(names)} in all)"


def size_of(size: int | list[int] | None, run: Run) -> tuple[int, int]:
    match size:
        case [height, width]:
            return height, width
        case int():
            return size, size
    raise InputError(f"{run.path} was trained on images of their own sizes; say which with --size")


def runs_of(rows: Sequence[int], batch: int) -> list[range]:
    """Consecutive rows, at most `batch` together."""
    found: list[range] = []
    for row in rows:
        if found and found[-1].stop == row and len(found[-1]) < batch:
            found[-1] = range(found[-1].start, row + 1)
        else:
            found.append(range(row, row + 1))
    return found


def same(path: Path, settings: dict) -> None:
    if path.is_file() and read_json(path) != settings:
        raise InputError(f"{path.parent} holds images that were drawn otherwise ({path.name} says how); choose another --out")


def write_table(path: Path, images: Sequence[Path], labels: Tensor, names: Sequence[str]) -> None:
    """A labels.csv as training reads it."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(names or [f"label-{index}" for index in range(labels.shape[1])])])
        writer.writerows([image.stem, *(f"{value:g}" for value in row)] for image, row in zip(images, labels.tolist(), strict=True))


def opened(path: Path):  # noqa: ANN201 - an array
    import numpy as np

    with Image.open(path) as image:
        return np.asarray(image)
