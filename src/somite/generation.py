"""Images drawn from a run of synthesis: files, a sheet of them, and a table of what was asked for. Image i is a function of (seed, i).

Whoever draws it, in whatever batch: so a thousand images go on where they were stopped, and a part of them can be drawn elsewhere.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .data.images import write_png
from .errors import InputError
from .files import read_json, replacing, sha256, write_json
from .pipeline import Run
from .predict.ensemble import draw
from .tasks.synthesis import LABELS, Synthesis
from .tasks.synthesis.looks import pixels, sheet

SHOWN = 64  # images on the sheet


def generate(
    run: Run,
    out: Path,
    count: int,
    labels: Tensor | None = None,
    names: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    first: int = 0,
    progress: Callable[[Sequence[range]], Iterable[range]] = iter,
) -> list[Path]:
    """Write sample-00000.png ..., sheet.png, labels.csv and sampling.json into `out`; images that are there are kept. Returns their paths.

    labels: (count, K), what each image is asked to show, and `names` of the K; None where the run knows none. size: (h, w), the recipe's
    by default; any size that the network takes. first: the number of the first image, for parts that are drawn apart.
    Raises InputError for a run that makes no images, and for a folder that holds images of other settings.
    """
    task, data = run.recipe.task, run.recipe.data
    if not isinstance(task, Synthesis):
        raise InputError(f"{run.path} is no run of synthesis; give one whose recipe has the task somite.tasks.synthesis.Synthesis")
    if count < 1:
        raise InputError(f"-n {count}: draw at least 1 image")
    size = size or size_of(data.preprocess.size, run)
    shape = (first + count, data.preprocess.channels, *size)
    run.method.codec.shape(shape)
    settings = {"run": str(run.path.resolve()), "weights": sha256(run.path / "weights.safetensors"), **run.told, "size": list(size)}
    same(out / "sampling.json", settings)
    asked = torch.zeros(count, 0) if labels is None else labels
    cond = {LABELS: torch.cat([asked.new_zeros(first, asked.shape[1]), asked])}
    paths = [out / f"sample-{first + index:05d}.png" for index in range(count)]
    left = [first + index for index, path in enumerate(paths) if not path.is_file()]
    write_json(out / "sampling.json", settings)
    for rows in progress(runs_of(left, task.batch)):
        with torch.no_grad():
            (images,) = draw(run.method, cond, shape, "sample", rows, 1, run.sampling.seed, task.batch)
        for row, image in zip(rows, images, strict=True):
            write_png(paths[row - first], pixels(image))
    write_table(out / "labels.csv", paths, asked, names)
    with replacing(out / "sheet.png") as temporary:
        sheet([opened(path) for path in paths[:SHOWN]]).save(temporary, format="PNG")
    return paths


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
    if unknown:
        raise InputError(f"--labels {unknown[0]}: the run knows {', '.join(names)}")
    return torch.tensor([[float(name in wanted) for name in names]]).expand(count, -1), names


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
