"""What a recipe takes on this machine: one batch as training draws it, one step, one validation case."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..baselines.fit import step_seconds
from ..data.record import Case
from ..errors import InputError
from ..recipe import Recipe
from ..types import Sample
from ..wording import duration, size
from .finding import Finding
from .machine import Machine, machine, machine_findings, peak_memory

SLOW = 20.0  # seconds of a step from which on one example stands for the batch
COPIES = 5  # of the weights: themselves, their average, the best, and two of AdamW
DRAWN = 5e6  # bytes of a sheet of samples that each validation writes


@dataclass(frozen=True)
class Estimate:
    """step: seconds; whole: seconds of the training with its validations; memory: bytes at the peak; batch: bytes of one."""

    step: float
    validation: float
    whole: float
    memory: int
    batch: int
    run: float
    device: str


def estimated(recipe: Recipe, marked: Sequence[Case]) -> Estimate:
    """marked: training cases that are known to be good and to have some foreground. Raises InputError for what training would refuse."""
    data, options = recipe.data, recipe.training
    recipe.method.begin()
    if marked:
        recipe.task.check(data, recipe.method.codec, [data.loaded(marked[0])])
    batch: Sample = next(iter(data.stream(options.batch, 1, options.seed)))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with torch.random.fork_rng():
        first = step_seconds(recipe.method, *recipe.task.split({name: part[:1] for name, part in batch.items()}))
        before = peak_memory() or 0
        whole = options.batch * first <= SLOW
        step = step_seconds(recipe.method, *recipe.task.split(batch)) if whole and options.batch > 1 else options.batch * first
        peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory() or before
        validation = validation_seconds(recipe)
    optimiser = 2 * 4 * trained(recipe)  # AdamW's, which the step's SGD does without
    step *= options.accumulate
    checks = max(1, options.steps // options.validate)
    total = options.steps * step + checks * validation * len(data.cases("val"))
    run = COPIES * 4 * trained(recipe) + checks * DRAWN + (data.disk.limit if data.disk else 0)
    count = sum(part.element_size() * part.nelement() for part in batch.values())
    return Estimate(step, validation, total, peak + optimiser, count, run, "GPU" if on_gpu else "CPU")


def trained(recipe: Recipe) -> int:
    return sum(p.numel() for p in recipe.method.parameters() if p.requires_grad)


def validation_seconds(recipe: Recipe) -> float:
    """Of one case."""
    case = recipe.data.cases("val")[0]
    sample = recipe.data.watched(case)
    device = next(recipe.method.parameters()).device
    began = time.perf_counter()
    with torch.no_grad():
        recipe.method.eval()
        recipe.task.glimpse(recipe.method, {name: part.to(device) for name, part in sample.items()}, case.id)
    return time.perf_counter() - began


def recipe_findings(recipe: Recipe, marked: Sequence[Case], folder: Path = Path()) -> tuple[list[Finding], Estimate | None]:
    """What training would stop at, and what it takes."""
    here = machine(folder)
    try:
        found = estimated(recipe, marked)
    except InputError as error:
        return [Finding("recipe", str(error))], None
    except (torch.OutOfMemoryError, MemoryError):
        return [
            Finding(
                "memory", "a training step does not fit into memory", "a smaller --training.batch, --data.crop or --data.preprocess.size"
            )
        ], None
    except RuntimeError as error:  # torch's, of shapes and devices
        return [
            Finding("recipe", f"a training step fails: {str(error).splitlines()[0]}", "these data and this recipe do not fit together")
        ], None
    return [
        told(found, recipe),
        *memory_findings(found, here),
        *machine_findings(here, recipe.training.workers, found.batch, found.run),
    ], found


def told(found: Estimate, recipe: Recipe) -> Finding:
    options = recipe.training
    text = (
        f"{options.steps:,} steps of {found.step:.3g} s on this machine's {found.device} and {max(1, options.steps // options.validate):,} validations: about "
        f"{duration(found.whole)} in all (without patience), {size(found.memory)} of memory, {size(int(found.run))} on disk"
    )
    return Finding("estimate", text, "fewer --training.steps, or a smaller recipe (somite recipes)" if found.whole > 24 * 3600 else "")


def memory_findings(found: Estimate, here: Machine) -> list[Finding]:
    room = torch.cuda.mem_get_info()[1] if found.device == "GPU" else here.free
    if room is None or found.memory <= room:
        return []
    text = f"training takes about {size(found.memory)} of memory, and {size(room)} are free"
    return [Finding("memory", text, "a smaller --training.batch, --data.crop or --data.preprocess.size")]
