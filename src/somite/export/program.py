"""A run as one program from image to mask, of any batch, size and number of members, checked against the run before it is written.

What it takes and gives is said in `graph.Graph`; what a program must be told beside it, in `described`.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..data.images import read_image
from ..data.normalise import Centred, Normalise, Standard, Window
from ..data.sources import NUCLEI
from ..diffusion.methods import Diffusion
from ..errors import InputError
from ..files import sha256
from ..pipeline import Run
from ..predict.fusion import Fusion
from .admit import admit, deterministic
from .fusing import threshold
from .graph import Graph
from .noise import noise

OUTPUTS = ("mask", "probability", "spread")
NOTICE = "Research use only. Not a medical device."
AXES = {
    "image": ("batch", "channels", "height", "width"),
    "noise": ("batch", "members", "maps", "grid_height", "grid_width"),
    "grid": ("grid_height", "grid_width"),
}
FREE = ("batch", "members")  # whatever the run; sizes and channels by its preprocessing
TRACED = (67, 97)  # an image of prime sizes, and so is its grid: what a network does where a block does not fit must be in the program
OTHERS = ((1, (64, 96), 3), (2, (89, 53), 1))  # rows, size and members of other images, by which the program is checked
TOLERANCE = 1e-4  # in probability
Inputs = dict[str, Tensor]
Answer = Callable[[Inputs], Mapping[str, Any]]


@dataclass(frozen=True)
class Program:
    run: Run
    graph: Graph
    traced: ExportedProgram
    inputs: Inputs  # by which it was traced


def program(run: Run) -> Program:
    """Raises InputError for a run that cannot be one, saying why."""
    admit(run)
    run = deterministic(run)
    graph = Graph(run).eval()
    height, width = looked(run.data.preprocess.size, TRACED)
    told = (prime(height), prime(width)) if isinstance(run.data.preprocess.size, int) else None
    inputs = example(run, 2, TRACED, 3, told)
    with written_down(run):
        traced = torch.export.export(
            graph, (), kwargs=inputs, dynamic_shapes=free(run, inputs), prefer_deferred_runtime_asserts_over_guards=True
        )
    return Program(run, graph, unasserted(traced), inputs)


def prime(n: int) -> int:
    """The largest prime up to n, which no block divides; below 5 n itself."""
    return next((m for m in range(n, 4, -1) if all(m % d for d in range(2, m))), n)


def example(run: Run, rows: int, size: tuple[int, int], members: int, grid: tuple[int, int] | None = None) -> Inputs:
    """Inputs of real images of this size, and noise. grid: at what size the network looks; None: what follows from the image's."""
    seen = run.data.preprocess
    photo = torch.from_numpy(read_image(sorted((NUCLEI / "images").glob("*.png"))[0]))[:, : size[0], : size[1]]
    tints = torch.linspace(1, 0.5, 3 if seen.channels in (1, 3) else seen.channels)[:, None, None]
    image = torch.stack([photo.mean(0).roll(7 * row, 1) * tints for row in range(rows)])
    inputs = {"image": scanned(seen.normalise, image).contiguous()}
    grid = grid or looked(seen.size, size)
    if isinstance(run.method, Diffusion):
        inputs["noise"] = torch.from_numpy(np.stack([noise(row, members, run.method.codec.channels, grid) for row in range(rows)]))
    elif isinstance(seen.size, int):
        inputs["grid"] = torch.zeros(grid)
    return inputs


def scanned(normalise: Normalise, photo: Tensor) -> Tensor:
    """A photograph as bright as what this normalisation expects."""
    match normalise:
        case Centred():
            return scanned(normalise.after, photo)
        case Window():
            return normalise.low + (normalise.high - normalise.low) * photo
        case Standard():
            low, high = (torch.tensor(ends)[:, None, None] for ends in (normalise.low, normalise.high))
            return low + (high - low) * photo
        case _:
            return photo


def looked(size: int | list[int] | None, own: tuple[int, int]) -> tuple[int, int]:
    """At what size the network looks at an image of its own size, as `Preprocess.target` has it."""
    match size:
        case None:
            return own
        case int():
            return (max(1, round(own[0] * size / max(own))), max(1, round(own[1] * size / max(own))))
        case _:
            return (size[0], size[1])


def free(run: Run, inputs: Inputs) -> dict[str, dict[int, Any]]:
    """Which axes of the inputs may be of any length."""
    seen = run.data.preprocess
    names = {*FREE, "height", "width", *(["channels"] if seen.channels in (1, 3) else [])}
    names |= set() if isinstance(seen.size, list) else {"grid_height", "grid_width"}
    return {name: {axis: Dim.DYNAMIC for axis, told in enumerate(AXES[name]) if told in names} for name in inputs}


def unasserted(traced: ExportedProgram) -> ExportedProgram:
    """Without torch's notes of what held for the traced sizes, such as that something had to be padded: the arithmetic holds without."""
    graph = traced.graph
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and "_assert_scalar" in str(node.target):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    traced.graph_module.recompile()
    return traced


def described(run: Run) -> dict[str, Any]:
    """What a file says of itself."""
    seen, method, values = run.data.preprocess, run.method, run.data.values
    drawn = isinstance(method, Diffusion)
    return {
        "name": run.path.resolve().name,
        "notice": NOTICE,
        "somite": version("somite"),
        "recipe_sha256": sha256(run.path / "recipe.yaml"),
        "weights_sha256": sha256(run.path / "weights.safetensors"),
        "asked": list(run.sampling.overrides),
        "network": type(method.network).__name__,  # type: ignore[union-attr]
        "classes": [0, 1] if values is None else list(values),
        "channels": seen.channels,
        "size": seen.size,
        "normalise": told(seen.normalise),
        "maps": method.codec.maps,  # type: ignore[union-attr]
        "noise_channels": method.codec.channels if drawn else 0,  # type: ignore[union-attr]
        "members": run.sampling.members if drawn else 1,
        "firing": deterministic(run).told["firing"],
        "fusion": told(run.recipe.task.fusion),  # type: ignore[attr-defined]
    }


def told(part: Any) -> dict[str, Any]:  # noqa: ANN401 - of a recipe
    """A part of a recipe by its name and plain settings."""
    settings = {
        name: value if isinstance(value, str | int | float | bool | list | None) else told(value) for name, value in vars(part).items()
    }
    return {"class": type(part).__name__, **settings}


def check(made: Program, answer: Answer, what: str) -> float:
    """The largest difference from the run in probability, at sizes that the program was not traced at.

    Raises InputError where it is more than the tolerance, a pixel of the mask is another, or there is no answer.
    """
    sorry = "so it was not written; use `somite predict`, and please report it"
    worst = 0.0
    for rows, size, members in OTHERS:
        inputs = example(made.run, rows, size, members)
        with torch.no_grad():
            wanted = dict(zip(OUTPUTS, made.graph(**inputs), strict=True))
        try:
            found = {name: torch.as_tensor(value) for name, value in answer(inputs).items()}
        except Exception as error:  # whatever runs it, that is its own
            why = f"{' x '.join(map(str, size))} pixels ({shortly(error)})"
            raise InputError(f"{made.run.path}: {what} has no answer for an image of {why}, {sorry}") from error
        off = float((found["probability"] - wanted["probability"]).abs().max())
        other = int(((found["mask"] != wanted["mask"]) & (margin(made.graph.fusion, wanted["probability"]) > off)).sum())
        if not off <= TOLERANCE or other:
            raise InputError(
                f"{made.run.path}: {what} answers otherwise than the run, by {off:.2g} in probability and {other} pixels of a mask, {sorry}"
            )
        worst = max(worst, off)
    return worst


def margin(fusion: Fusion, probability: Tensor) -> Tensor:
    """(b, k, h, w) -> (b, h, w): how far a pixel is from another class, in probability."""
    if probability.shape[1] == 1:
        return (probability[:, 0] - threshold(fusion)).abs()
    first, second = probability.topk(2, dim=1).values.unbind(1)
    return (first - second) / 2


@contextmanager
def written_down(run: Run) -> Iterator[None]:
    """Around torch's exporters: without what they log, print and warn of, which is about their own code, and with what they cannot do as
    InputError.
    """
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stderr(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # what a network does may be anything, and so may be torch's answer
        network = type(run.method.network).__name__  # type: ignore[union-attr]
        raise InputError(
            f"{run.path} cannot be exported: torch cannot write {network} down for all sizes ({shortly(error)}); use `somite predict`"
        ) from error
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)


def shortly(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
