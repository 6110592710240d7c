"""What a report of synthesis shows of its images: real beside generated, one noise under many updates, a trajectory, nearest neighbours."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ...data.dataset import Data
from ...data.images import read_image
from ...data.record import Case
from ...diffusion.methods import Diffusion, Method
from ...errors import InputError
from ...metrics.generation import AMONG, chance, rank
from ...nn.automaton import Cellular
from ...predict.ensemble import sample
from ...rng import seeded
from ...types import Cond, Shape
from ...wording import number
from ..task import Opened, Row, Task
from ..view import Found, Plot, Section
from .figures import Picture, Strip, distances, strips
from .looks import pixels
from .sets import COPIES, GENERATED, HELD_OUT, Some

EACH, CLASSES, LINES = 6, 8, 4  # images of a kind beside each other; classes that are shown; lines where there are no classes
UPDATES = (1, 2, 4, 8, 12, 24, 48)
POINTS = 8  # of a trajectory
SUSPICIOUS = 8


def sections(task: Task, found: Found, run: Opened) -> list[Section]:
    at_hand = {case.id: case for case in run.data.cases(found.summary["split"])}
    cases = [at_hand[id] for id in dict.fromkeys(row["case"] for row in found.rows) if id in at_hand]
    plots = [*beside(cases, run.data, found.answers), *(one for case in cases[:1] for one in asked_again(task, case, run))]
    shown = [Section("images", "What is generated", plots)] if plots else []
    return [*shown, *learned(found, run.trained_on)]


def beside(cases: Sequence[Case], data: Data, answers: Path) -> Iterable[Plot]:
    """Real images and those that were generated for the same labels, class by class."""
    kept = [case for case in cases if file_of(answers, case.id, 0).is_file()]
    names = data.source.classes if kept and kept[0].labels is not None else ()
    groups = {name: [case for case in kept if case.labels and case.labels[index]] for index, name in enumerate(names)}
    lines = list({name: some for name, some in groups.items() if some}.items())[:CLASSES]
    lines = [(name, some[:EACH]) for name, some in lines] or [
        ("", kept[at : at + EACH]) for at in range(0, min(len(kept), LINES * EACH), EACH)
    ]
    if not lines:
        return
    rows = []
    for name, some in lines:
        real = [photograph(data, case) for case in some]
        made = [opened(file_of(answers, case.id, 0)) for case in some]
        free: list[Picture | None] = [None] * (EACH - len(some))
        rows.append(Strip([*real, *free, None, *made], name))
    more = f" The first {CLASSES} of {len(names)} classes." if len(lines) == CLASSES < len(names) else ""
    text = f"The first images of the split, and those generated for the same {'labels' if names else 'number of cases'}.{more}"
    alt = "Real images on the left, generated ones on the right" + (", a line a class" if names else "")
    yield Plot("Real and generated", strips(rows, [(0, "real"), (EACH + 1, "generated")]), alt, text, wide=True)


def asked_again(task: Task, case: Case, run: Opened) -> Iterable[Plot]:
    """The sample that was drawn for a case: under other numbers of updates, and on its way."""
    given = run.data.sample(run.data.read(case), task.given)
    cond, shape, seed = task.cond(given), task.shape(given), run.sampling.seed
    usual = updates_of(run.method)
    others = {} if usual is None else with_updates(run, sorted({*UPDATES, usual}))
    if others:
        made = [pixels(sample(other.method, cond, shape, case.id, 1, seed, 1)[0, 0]) for other in others.values()]
        captions = [f"M = {count}" + (" (as evaluated)" if count == usual else "") for count in others]
        text = f"The noise of case {case.id} under M updates of the cells a step. Fewer updates see less far; more than trained may drift."
        figure = strips([Strip(made, captions=captions)])
        yield Plot("One noise under M updates", figure, "One sample for each number of updates", text, wide=True)
    if isinstance(run.method, Diffusion):
        points = trajectory(run.method, cond, shape, case.id, seed)
        figure = strips([Strip([image for _, image in points], captions=[f"t = {t}" for t, _ in points])])
        text = f"What the network takes for the clean image of case {case.id} at {len(points)} of {run.method.steps} steps, from pure noise to the sample."
        yield Plot("The way of one sample", figure, "Estimates of the clean image from noise to sample", text, wide=True)


def updates_of(method: Method) -> int | None:
    """How often the network's cells are updated a step; None for one that has no cells."""
    found = [getattr(one, "updates", None) for one in method.modules() if isinstance(one, Cellular)]
    return next((count for count in found if isinstance(count, int)), None)


def with_updates(run: Opened, counts: Sequence[int]) -> dict[int, Opened]:
    try:
        return {count: run.at(updates=count) for count in counts}
    except InputError:  # cells whose updates are no argument of the recipe
        return {}


@torch.no_grad()
def trajectory(method: Diffusion, cond: Cond, shape: Shape, case: str, seed: int) -> list[tuple[int, Picture]]:
    """(t, the decoded estimate of x0) at up to POINTS steps of the case's first sample."""
    device = next(method.parameters()).device
    wanted = set(np.linspace(0, method.steps - 1, POINTS).round().astype(int).tolist())
    found = []
    with seeded(seed, [f"{case}/0/0"]):
        for index, step in enumerate(method.trajectory({name: part.to(device) for name, part in cond.items()}, shape, [0])):
            if index in wanted:
                found.append((step.t, pixels(method.codec.decode(step.pred.x0, shape)[0].float().cpu())))
    return found


def learned(found: Found, trained: Data) -> list[Section]:
    """Each number of memorisation as a figure, and the most suspicious pairs."""
    table = found.tables.get("neighbours", [])
    held_out, made = (Some.of(table, kind, [row["case"] for row in table]) for kind in (HELD_OUT, GENERATED))
    if not made.rows:
        return []
    extractor, plots = found.summary["extractor"], list(pairs(made.rows, found, trained))
    labels = {"memorised": f"distance by {extractor}", "copied": f"distance / mean distance to the nearest {AMONG}"}
    for name, column in COPIES.items() if held_out.rows else ():
        theirs, ours = held_out.column(column), made.column(column)
        threshold = float(np.sort(theirs)[rank(len(theirs)) - 1])
        text = f"Dashed: the threshold, below which {100 * chance(len(theirs)):.1f} % of further held-out images would lie."
        if name in found.summary["sets"]:
            text += f" Of the generated ones {100 * found.summary['sets'][name]['mean']:.1f} % do."
        title = {"memorised": "Distance to the nearest training image", "copied": "The same against the training images around it"}[name]
        alt = "Share of images within each distance of their nearest training image, generated and held out"
        plots.append(Plot(title, distances(ours, theirs, threshold, labels[name]), alt, text))
    if not plots:
        return []
    text = (
        "A copy is much nearer to one training image than images that nobody trained on are. Blurred or dull images are near to all of them, which "
        "the distance alone takes for copying; the relative distance does not. Mirrored or turned copies show only if the extractor sees past that."
    )
    return [Section("neighbours", "Learned by heart?", plots, [("How to read this.", text)])]


def pairs(rows: Sequence[Row], found: Found, trained: Data) -> Iterable[Plot]:
    """The generated images whose nearest training image stands out most, above it; nothing where either is gone."""
    ranked = sorted(rows, key=lambda row: (float(row["relative"]), float(row["distance"])))[:SUSPICIOUS]
    files = [file_of(found.answers, row["case"], int(row["member"])) for row in ranked]
    try:
        training = {case.id: case for case in trained.cases("train")}
        theirs = [photograph(trained, training[row["nearest"]]) for row in ranked]
        ours = [opened(file) for file in files]
    except (InputError, OSError, KeyError):
        return
    told = [f"{short(row['nearest'])}\n{number(float(row['distance']))} ({number(float(row['relative']))})" for row in ranked]
    rows_ = [Strip(ours, "generated"), Strip(theirs, "nearest training image", told)]
    text = (
        "The most suspicious first. Under each pair: the training image, its distance and, in brackets, the relative distance: 0 is a copy."
    )
    alt = "Generated images above their nearest training images"
    yield Plot("Nearest neighbours", strips(rows_), alt, f"{text} By {found.summary['extractor']}.", wide=True)


def short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def file_of(answers: Path, case: str, member: int) -> Path:
    return answers / f"{case}_generated-{member:02d}.png"


def photograph(data: Data, case: Case) -> Picture:
    """A case's own image as the network sees it."""
    return pixels(data.preprocess.image(data.read(case))[0])


def opened(path: Path) -> Picture:
    return pixels(torch.from_numpy(read_image(path)))
